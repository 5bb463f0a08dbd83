import { useMemo } from "preact/hooks";

import type { Schema } from "../api/client";
import { type More, useList } from "../api/loading";
import { at, counting, inBytes, inDollars, inEpsilon, inSeconds } from "../parts/columns";
import { dollars } from "../parts/format";
import { Heading, Panel, Shown } from "../parts/show";
import { Table } from "../parts/Table";
import { Link, parameter, setParameter } from "../router";

const DAY_S = 86_400;
const SPANS: Record<string, [string, number]> = {
  day: ["last day", DAY_S],
  week: ["last week", 7 * DAY_S],
  month: ["last 30 days", 30 * DAY_S],
};

const usd = (micro: number) => dollars(micro / 1e6);

export function Accounts() {
  const span = parameter("span");
  const account = parameter("account");
  // The moment of opening: a list whose beginning moves on would be loaded for ever.
  const from_s = useMemo(() => (SPANS[span] ? Math.floor(Date.now() / 1000) - SPANS[span][1] : undefined), [span]);
  const accounts = useList<Schema["AccountView"]>("/accounts", { account, from_s }, ["job"]);
  const entries = useList<Schema["LedgerLine"]>("/ledger", { account, from_s }, ["job"]);
  return (
    <>
      <Heading
        aside={
          <label>
            of the
            <select value={span} onChange={(event) => setParameter("span", event.currentTarget.value)}>
              <option value="">whole time</option>
              {Object.entries(SPANS).map(([name, [words]]) => <option key={name} value={name}>{words}</option>)}
            </select>
          </label>
        }
      >
        Accounts{account && ` of ${account}`}
      </Heading>
      {account && <p><Link to="/accounts">All accounts</Link></p>}
      <Panel title="Who used what, and what it cost">
        <Shown of={accounts}>{(rows) => <AccountTable rows={rows} more={accounts.more} />}</Shown>
      </Panel>
      <Panel title="Entries of the ledger">
        <Shown of={entries}>{(rows) => <Entries rows={rows} more={entries.more} />}</Shown>
      </Panel>
    </>
  );
}

function AccountTable({ rows, more }: { rows: Schema["AccountView"][]; more?: More<Schema["AccountView"]> }) {
  return (
    <Table
      caption="Accounts"
      rows={rows}
      more={more}
      empty="Nothing has been used yet."
      columns={[
        { name: "account", show: (one) => <Link to={`/accounts?account=${encodeURIComponent(one.account)}`}>{one.account}</Link>, value: (one) => one.account },
        { name: "owner", show: (one) => one.owner },
        { name: "paid", as: inDollars, of: (one) => one.paid_micro_usd / 1e6 },
        { name: "earned", as: inDollars, of: (one) => one.earned_micro_usd / 1e6 },
        { name: "balance", as: inDollars, of: (one) => one.balance_micro_usd / 1e6 },
        { name: "credits", as: inDollars, of: (one) => (one.by_kind?.credits ?? 0) / 1e6 },
        { name: "computing", as: inSeconds, of: (one) => (one.quantities.compute_ms ?? 0) / 1000 },
        { name: "moved", as: inBytes, of: (one) => one.quantities.bytes_moved ?? 0 },
        { name: "examples", as: counting, of: (one) => one.quantities.examples ?? 0 },
        { name: "privacy", as: inEpsilon, of: (one) => (one.quantities.micro_epsilon ?? 0) / 1e6 },
        { name: "answers", as: counting, of: (one) => one.quantities.answers ?? 0 },
        { name: "tokens out", as: counting, of: (one) => one.quantities.tokens_out ?? 0 },
      ]}
    />
  );
}

function Entries({ rows, more }: { rows: Schema["LedgerLine"][]; more?: More<Schema["LedgerLine"]> }) {
  return (
    <Table
      caption="Entries"
      rows={rows}
      more={more}
      empty="No entry yet."
      columns={[
        { name: "number", show: (one) => one.number, number: true },
        { name: "when", as: at, of: (one) => one.entry.at_s },
        { name: "kind", show: (one) => one.entry.kind },
        { name: "job", show: (one) => (one.entry.job ? <Link to={`/jobs/${encodeURIComponent(one.entry.job)}`}>{one.entry.job}</Link> : "–"), value: (one) => one.entry.job ?? "" },
        { name: "what", show: (one) => one.entry.what ?? "" },
        { name: "privacy", as: inEpsilon, of: (one) => (one.entry.quantities?.micro_epsilon ?? 0) / 1e6 },
        { name: "postings", show: (one) => one.entry.postings.map((posting) => `${posting.account} ${usd(posting.micro_usd)}`).join(", ") || "–", value: (one) => one.entry.postings.map((posting) => `${posting.account} ${posting.micro_usd / 1e6}`).join("; ") },
      ]}
    />
  );
}

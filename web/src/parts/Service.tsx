// Taking a site out of service, and back into it.
import { useState } from "preact/hooks";

import { type Failure, get, post, type Schema, segment } from "../api/client";
import { useLoaded, usePolled } from "../api/loading";
import { Panel, Problem } from "./show";

type Change = Schema["CordonChange"];
type Report = Schema["CordonReport"];

/** For its owner and operators; the site itself decides who may. */
export function Service({ site, cordon, reload }: { site: string; cordon: Schema["Cordon"] | null; reload: () => void }) {
  const session = useLoaded("session", (signal) => get<Schema["SessionView"]>("/session", {}, signal));
  const [reason, setReason] = useState("");
  const [failure, fail] = useState<Failure>();
  const [busy, setBusy] = useState(false);
  if (!session.data || session.data.you?.role === "viewer") return null;
  const change = (wanted: Change) => {
    setBusy(true);
    fail(undefined);
    post<Report>(`/sites/${segment(site)}/cordon`, { change: wanted, reason: wanted === "uncordon" ? "" : reason })
      .then(reload, fail)
      .finally(() => setBusy(false));
  };
  return (
    <Panel title="Service">
      {failure && <Problem failure={failure} />}
      {failure && <p class="quiet">Or, with a key of your own: <code>daitn {cordon ? "uncordon" : "drain"} {site}</code></p>}
      {cordon ? (
        <>
          <Left site={site} />
          <div class="aside">
            {!cordon.draining && <button disabled={busy} onClick={() => change("drain")}>Drain</button>}
            <button disabled={busy} onClick={() => change("uncordon")}>Take back into service</button>
          </div>
        </>
      ) : (
        <form onSubmit={(event) => event.preventDefault()}>
          <div class="fields">
            <label>
              why, for every explanation of who is not chosen
              <input value={reason} maxLength={300} onInput={(event) => setReason(event.currentTarget.value)} />
            </label>
            <div class="aside">
              <button disabled={busy} onClick={() => change("cordon")}>Cordon</button>
              <button disabled={busy} onClick={() => change("drain")}>Drain</button>
            </div>
          </div>
          <p class="quiet">A cordoned site gets nothing new, and what runs there goes on. Of a drained one, deployments move elsewhere, too.</p>
        </form>
      )}
    </Panel>
  );
}

/** What is still under way at a site that gets nothing new. */
function Left({ site }: { site: string }) {
  const path = `/sites/${segment(site)}/cordon`;
  const loaded = useLoaded(path, (signal) => get<Report>(path, {}, signal), ["site"]);
  usePolled(loaded.reload);
  if (loaded.failure) return <Problem failure={loaded.failure} />;
  if (!loaded.data) return <p class="quiet" role="status">Loading…</p>;
  const { visits, queries, packets, agents, deployments = [] } = loaded.data;
  const counts = { visits, queries, packets, "travelling models": agents };
  const left = [
    ...Object.entries(counts).flatMap(([what, number]) => (number ? [`${number} ${what}`] : [])),
    ...deployments.map((name) => `deployment ${name}`),
  ];
  return <p>{left.length ? `Still under way here: ${left.join(", ")}.` : "Nothing is under way here: it is safe to stop."}</p>;
}

import type { Schema } from "../api/client";
import { useList } from "../api/loading";
import { at } from "../parts/columns";
import { Heading, Panel, Shown } from "../parts/show";
import { Table } from "../parts/Table";

export function Audit() {
  const heads = useList<Schema["CountersignedHead"]>("/audit", {}, []);
  return (
    <>
      <Heading>Audit</Heading>
      <Panel title="Audit logs of sites, as this control centre countersigned them">
        <p class="quiet">
          A site cannot take back what stands before its countersigned head. <code>daitn audit verify</code> checks a
          site's log against it.
        </p>
        <Shown of={heads}>
          {(rows) => (
            <Table
              caption="Countersigned heads"
              rows={rows}
              more={heads.more}
              empty="No site has reported its audit log yet."
              columns={[
                { name: "site", show: (one) => one.site },
                { name: "entries", show: (one) => one.number, number: true },
                { name: "head", show: (one) => <code>{one.digest.slice(0, 16)}…</code>, value: (one) => one.digest },
                { name: "at", as: at, of: (one) => one.at_s },
              ]}
            />
          )}
        </Shown>
      </Panel>
    </>
  );
}

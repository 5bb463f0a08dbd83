// Taking a site out of service, and back into it.
import { useState } from "preact/hooks";

import { get, mayChange, post, type Schema, segment } from "../api/client";
import { useLoaded, usePolled } from "../api/loading";
import { useAction } from "./action";
import { Panel, Problem } from "./show";

type Change = Schema["CordonChange"];
type Report = Schema["CordonReport"];

/** For its owner and operators; the site itself decides who may. */
export function Service({ site, owner, cordon, reloaded }: { site: string; owner: string; cordon: Schema["Cordon"] | null; reloaded: () => Promise<void> }) {
  const [reason, setReason] = useState("");
  const { busy, failure, act } = useAction();
  if (!mayChange(owner)) return null;
  const change = (wanted: Change) =>
    act(() => post(`/sites/${segment(site)}/cordon`, { change: wanted, reason: wanted === "uncordon" ? "" : reason }).then(reloaded));
  return (
    <Panel title="Service">
      {failure && <Problem failure={failure} />}
      {failure && <p class="quiet">Or, with a key of your own: <code>daitn {cordon ? "uncordon" : "drain"} {site}</code></p>}
      {cordon ? (
        <>
          <Left site={site} />
          <div class="aside">
            {!cordon.draining && <button type="button" disabled={busy} onClick={() => change("drain")}>Drain</button>}
            <button type="button" disabled={busy} onClick={() => change("uncordon")}>Return to service</button>
          </div>
        </>
      ) : (
        <>
          <div class="fields">
            <label>
              why, for every explanation of who is not chosen
              <input value={reason} maxLength={300} onInput={(event) => setReason(event.currentTarget.value)} />
            </label>
            <div class="aside">
              <button type="button" disabled={busy} onClick={() => change("cordon")}>Cordon</button>
              <button type="button" disabled={busy} onClick={() => change("drain")}>Drain</button>
            </div>
          </div>
          <p class="quiet">A cordoned site gets nothing new, and running work continues. From a drained site, deployments also move elsewhere.</p>
        </>
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
  const counts: [number | undefined, string, string][] = [
    [visits, "visit", "visits"],
    [queries, "query", "queries"],
    [packets, "packet", "packets"],
    [agents, "travelling model", "travelling models"],
  ];
  const left = [
    ...counts.flatMap(([number, one, many]) => (number ? [`${number} ${number === 1 ? one : many}`] : [])),
    ...deployments.map((name) => `deployment ${name}`),
  ];
  return <p>{left.length ? `Still in progress here: ${left.join(", ")}.` : "Nothing is in progress here: the site is safe to stop."}</p>;
}

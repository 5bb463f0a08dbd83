// The frame: who is signed in, where one can go, and whether what is shown is live.
import { useEffect, useState } from "preact/hooks";

import { failed, type Failure, get, remove, type Schema, whenSignedOut } from "./api/client";
import { close, connected, open } from "./api/live";
import { Accounts } from "./pages/Accounts";
import { Audit, Events } from "./pages/News";
import { IntentPage } from "./pages/Intent";
import { JobPage, Jobs } from "./pages/Jobs";
import { MapPage } from "./pages/MapPage";
import { Models } from "./pages/Models";
import { Overview } from "./pages/Overview";
import { Packets } from "./pages/Packets";
import { Queries, QueryPage } from "./pages/Queries";
import { signIn, SignIn } from "./pages/SignIn";
import { SitePage, Sites } from "./pages/Sites";
import { Topology } from "./pages/Topology";
import { Empty, Problem } from "./parts/show";
import { Link, matched, place } from "./router";

const MENU = [
  ["/", "Overview"],
  ["/map", "Map"],
  ["/sites", "Sites"],
  ["/topology", "Topologies"],
  ["/jobs", "Jobs"],
  ["/intent", "New intent"],
  ["/models", "Models"],
  ["/queries", "Queries"],
  ["/packets", "Packets"],
  ["/accounts", "Accounts"],
  ["/events", "Events"],
  ["/audit", "Audit"],
] as const;

const PAGES: [string, (names: Record<string, string>) => preact.JSX.Element][] = [
  ["/", () => <Overview />],
  ["/map", () => <MapPage />],
  ["/sites", () => <Sites />],
  ["/sites/:site", ({ site }) => <SitePage site={site!} />],
  ["/topology", () => <Topology />],
  ["/jobs", () => <Jobs />],
  ["/jobs/:job", ({ job }) => <JobPage job={job!} />],
  ["/intent", () => <IntentPage />],
  ["/models", () => <Models />],
  ["/queries", () => <Queries />],
  ["/queries/:gateway/:id", ({ gateway, id }) => <QueryPage gateway={gateway!} id={id!} />],
  ["/packets", () => <Packets />],
  ["/accounts", () => <Accounts />],
  ["/events", () => <Events />],
  ["/audit", () => <Audit />],
];

type Signed = { session?: Schema["SessionView"]; failure?: Failure };

export function App() {
  const [signed, set] = useState<Signed>({});
  const ask = () => {
    get<Schema["SessionView"]>("/session").then((session) => set({ session }), (error: unknown) => set({ failure: failed(error) }));
  };
  useEffect(() => {
    whenSignedOut(() => set((before) => (before.session?.you ? { session: { ...before.session, you: null } } : before)));
    const token = new URLSearchParams(location.hash.slice(1)).get("token");
    if (!token) {
      ask();
      return;
    }
    history.replaceState(null, "", location.pathname + location.search); // Not to be kept or shared.
    signIn(token).then(ask, ask);
  }, []);
  const session = signed.session;
  const inside = session !== undefined && (session.you !== null || session.ways.length === 0);
  useEffect(() => (inside ? open() : close()), [inside]);
  if (signed.failure) return <main class="sign-in" id="main"><h1>DA-ITN</h1><Problem failure={signed.failure} again={ask} /></main>;
  if (!session) return <p class="sign-in" role="status">Loading…</p>;
  if (!inside) return <SignIn ways={session.ways} done={ask} />;
  return <Frame you={session.you} leave={() => void remove("/session").then(ask, ask)} />;
}

function Frame({ you, leave }: { you: Schema["You"] | null; leave: () => void }) {
  const path = place.value.pathname;
  const current = MENU.find(([to]) => path === to || (to !== "/" && path.startsWith(`${to}/`)));
  useEffect(() => {
    document.title = `${current?.[1] ?? "Nothing here"} – DA-ITN`;
  }, [current]);
  return (
    <div class="frame">
      <a class="skip" href="#main">To the content</a>
      <nav aria-label="Pages">
        <div class="brand"><img src="/icon.svg" alt="" /> <span>DA-ITN</span></div>
        {MENU.map(([to, name]) => <Link key={to} to={to} current={current?.[0] === to}>{name}</Link>)}
        <div class="who">
          {you?.member ? <>{you.member}, {you.role} <button class="plain" onClick={leave}>Sign out</button></> : "no sign-in needed"}
        </div>
      </nav>
      <main id="main" tabIndex={-1}>
        {connected.value === false && (
          <p class="lost" role="alert">The control centre does not answer: what is shown may be old. Trying again…</p>
        )}
        <Routed path={path} />
      </main>
    </div>
  );
}

function Routed({ path }: { path: string }) {
  for (const [pattern, page] of PAGES) {
    const names = matched(pattern, path);
    if (names) return <div key={path}>{page(names)}</div>;
  }
  return <><h1>Nothing here</h1><Empty>There is no page at {path}. <Link to="/">To the overview</Link></Empty></>;
}

// The frame: who is signed in, where one can go, and whether what is shown is live.
import type { ComponentChildren } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";

import { failed, Failure, get, remove, type Schema, whenSignedOut, you } from "./api/client";
import { close, connected, open } from "./api/live";
import { Accounts } from "./pages/Accounts";
import { Audit } from "./pages/Audit";
import { Events } from "./pages/Events";
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
import { useAction } from "./parts/action";
import { Empty, Problem } from "./parts/show";
import { go, Link, matched, place } from "./router";

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

type Session = Schema["SessionView"];
type Signed = { session?: Session; failure?: Failure };

/** Tells the other tabs of this browser in which session they are, too: they have the same cookie. */
const sessions = new BroadcastChannel("daitn-session");

/** Sessions of the same name are the same member's, with the same rights. */
function named(session?: Session): string {
  return JSON.stringify(session?.you ?? null);
}

export function App() {
  const [signed, set] = useState<Signed>({});
  const [refused, refuse] = useState<Refusal>();
  const current = useRef<Session>();
  const enter = useCallback((session: Session) => {
    if (named(session) !== named(current.current)) {
      close(); // Before it can be heard in the new session.
      if (current.current) refuse(undefined);
    }
    current.current = session;
    set({ session });
  }, []);
  const ask = useCallback(async () => {
    try {
      const session = await get<Session>("/session");
      enter(session);
      sessions.postMessage(named(session));
    } catch (error) {
      set({ failure: failed(error) });
    }
  }, [enter]);
  useEffect(() => {
    whenSignedOut(() => current.current?.you && enter({ ...current.current, you: null }));
    sessions.onmessage = ({ data }: MessageEvent<string>) => void (data === named(current.current) || ask());
    addEventListener("pageshow", ({ persisted }) => void (persisted && ask())); // What was said meanwhile was not heard.
    /** By the token of a link, or with what an identity provider's page came to, if there is one. */
    const come = async (otherwise = async () => {}) => {
      const said = new URLSearchParams(location.hash.slice(1));
      const [token, problem] = [said.get("token"), said.get("problem")];
      if (token === null && problem === null) return otherwise();
      go(location.pathname + location.search, true); // Not to be kept or shared.
      refuse(problem === null ? undefined : { what: "Your organisation signed nobody in", why: new Failure(401, shortened(problem), "", shortened(said.get("fix") ?? "")) });
      if (token !== null) {
        const what = "The link to sign in was not accepted";
        await signIn(token).catch((error: unknown) => refuse({ what, why: failed(error) }));
      }
      await ask();
    };
    addEventListener("hashchange", () => void come());
    void come(ask);
  }, [ask, enter]);
  const session = signed.session;
  const inside = session !== undefined && (session.you !== null || session.ways.length === 0);
  const name = named(session);
  useEffect(() => (inside ? open(name) : close()), [inside, name]);
  you.value = session?.you ?? null;
  if (signed.failure) return <main class="sign-in" id="main"><h1>DA-ITN</h1><Problem failure={signed.failure} again={() => void ask()} /></main>;
  if (!session) return <p class="sign-in" role="status">Loading…</p>;
  const told = refused && <Refused of={refused} forget={() => refuse(undefined)} />;
  if (!inside) return <SignIn ways={session.ways} done={ask}>{told}</SignIn>;
  return <Frame key={name} leave={() => remove("/session").finally(ask)}>{told}</Frame>;
}

/** Of a link that anybody may have written. */
const shortened = (text: string) => text.slice(0, 300);

type Refusal = { what: string; why: Failure };

/** What signed nobody in; whoever was signed in before still is. */
function Refused({ of: { what, why }, forget }: { of: Refusal; forget: () => void }) {
  const path = place.value.pathname;
  const came = useRef(path);
  useEffect(() => {
    if (path !== came.current) forget();
  });
  const still = you.value?.member ? `; you are still ${you.value.member}` : "";
  return <Problem failure={new Failure(why.status, `${what}: ${why.message}${still}`, "", why.fix)} />;
}

function Frame({ leave, children }: { leave: () => Promise<unknown>; children: ComponentChildren }) {
  const { busy, failure, act } = useAction();
  const path = place.value.pathname;
  const who = you.value;
  const menu = MENU.filter(([to]) => to !== "/audit" || who?.kind !== "owner"); // It is for operators.
  const current = MENU.find(([to]) => path === to || (to !== "/" && path.startsWith(`${to}/`)));
  const title = [...shownAt(path), current?.[1] ?? "Nothing here", "DA-ITN"].join(" – ");
  useEffect(() => {
    document.title = title;
  }, [title]);
  return (
    <div class="frame">
      <a class="skip" href="#main">Skip to content</a>
      <nav aria-label="Pages">
        <div class="brand"><img src="/icon.svg" alt="" /> <span>DA-ITN</span></div>
        {menu.map(([to, name]) => <Link key={to} to={to} current={current?.[0] === to}>{name}</Link>)}
        <div class="who">
          {who?.member ? <>{who.member}, {who.role} <button type="button" class="plain" disabled={busy} onClick={() => act(leave)}>Sign out</button></> : "no sign-in needed"}
        </div>
      </nav>
      <main id="main" tabIndex={-1}>
        {connected.value === false && (
          <p class="lost" role="alert">The control centre does not answer, so this may be outdated. Trying again…</p>
        )}
        {children}
        {failure && <Problem failure={failure} />}
        <Routed path={path} />
      </main>
    </div>
  );
}

/** What the page at an address is about. */
function shownAt(path: string): string[] {
  const names = PAGES.map(([pattern]) => matched(pattern, path)).find((found) => found !== null) ?? {};
  return Object.keys(names).length ? [Object.values(names).join(":")] : [];
}

function Routed({ path }: { path: string }) {
  for (const [pattern, page] of PAGES) {
    const names = matched(pattern, path);
    if (names) return <div key={path}>{page(names)}</div>;
  }
  return <><h1>Nothing here</h1><Empty>There is no page at {path}. <Link to="/">To the overview</Link></Empty></>;
}

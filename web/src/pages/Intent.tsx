import { useEffect, useState } from "preact/hooks";

import { Failure, get, post, type Schema } from "../api/client";
import { listen } from "../api/live";
import { useLoaded, useList } from "../api/loading";
import { counting, inDollars, inSeconds } from "../parts/columns";
import { Rejections } from "../parts/decision";
import { score, share } from "../parts/format";
import { Heading, Panel, Problem } from "../parts/show";
import { save, Table } from "../parts/Table";
import { parameter, setParameter } from "../router";

const WAIT_MS = 500;

/** Numbers stay text: while one is typed it may be none yet. */
type Objective = { name: string; topic: string; metric: string; at_least: string };
type Draft = {
  name: string;
  owner: string;
  recipe: string;
  config: string;
  topics: string;
  objectives: Objective[];
  duration_s: string;
  cost_usd: string;
  examples: string;
};

const BLANK: Draft = {
  name: "model",
  owner: "",
  recipe: "classifier",
  config: '{"classes": ["no", "yes"]}',
  topics: "",
  objectives: [{ name: "knows", topic: "", metric: "accuracy", at_least: "0.9" }],
  duration_s: "3600",
  cost_usd: "",
  examples: "",
};

/** The draft that the address states; whatever it does not state as one is blank. */
function stated(): Draft {
  try {
    const said = JSON.parse(parameter("draft")) as Partial<Draft>;
    const alike = <T extends object>(one: T, blank: T) =>
      Object.entries(blank).every(([name, value]) => typeof one[name as keyof T] === typeof value);
    const draft = { ...BLANK, ...said };
    const whole = alike(draft, BLANK) && draft.objectives.length > 0 && draft.objectives.every((one) => alike(one, BLANK.objectives[0]!));
    return whole ? draft : BLANK;
  } catch {
    return BLANK;
  }
}

/** The intent as `daitn train -f` reads it. Throws where the configuration is no JSON. */
function written(draft: Draft): Record<string, unknown> {
  const number = (text: string) => (text.trim() ? Number(text) : undefined);
  const budget = {
    duration_s: number(draft.duration_s),
    cost_usd: number(draft.cost_usd),
    examples: number(draft.examples),
  };
  return {
    name: draft.name,
    owner: draft.owner,
    model: { recipe: draft.recipe, config: JSON.parse(draft.config || "{}") as unknown },
    objectives: draft.objectives.map((one) => ({ ...one, at_least: number(one.at_least) })),
    data: { topics: draft.topics.split(",").map((topic) => topic.trim()).filter(Boolean) },
    budget: Object.fromEntries(Object.entries(budget).filter(([, value]) => value !== undefined)),
  };
}

export function IntentPage() {
  const you = useLoaded("network", (signal) => get<Schema["NetworkView"]>("/network", {}, signal)).data?.you;
  const [draft, set] = useState(stated);
  const [assessed, tell] = useState<{ answer?: Schema["Assessment"]; failure?: Failure; busy?: boolean }>({});
  const [turn, again] = useState(0);
  useEffect(() => listen(["reset"], () => again((n) => n + 1)), []);

  // Browsers bound how often an address changes.
  useEffect(() => {
    if (draft === BLANK) return;
    const timer = setTimeout(() => setParameter("draft", JSON.stringify(draft)), WAIT_MS);
    return () => clearTimeout(timer);
  }, [draft]);

  useEffect(() => {
    if (!draft.owner || !draft.topics || draft.objectives.some((one) => !one.topic || !one.at_least)) {
      tell({});
      return;
    }
    const control = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const intent = written(draft);
        tell((before) => ({ ...before, busy: true }));
        tell({ answer: await post<Schema["Assessment"]>("/assessments", { intent }, control.signal) });
      } catch (error) {
        if (control.signal.aborted) return;
        const failure =
          error instanceof Failure ? error : new Failure(0, "the configuration is no JSON", "model.config", 'write it as {"classes": ["no", "yes"]}');
        tell({ failure });
      }
    }, WAIT_MS);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [draft, turn]);

  useEffect(() => {
    if (you?.kind === "owner") set((before) => ({ ...before, owner: before.owner || you.member }));
  }, [you]);

  const change = (part: Partial<Draft>) => set({ ...draft, ...part });
  return (
    <>
      <Heading>A new intent</Heading>
      <div class="columns">
        <Panel title="What the model must achieve, and its limits">
          <Form draft={draft} change={change} />
          <Handing draft={draft} />
        </Panel>
        <Verdict {...assessed} />
      </div>
    </>
  );
}

type FormProps = { draft: Draft; change: (part: Partial<Draft>) => void };

function Form({ draft, change }: FormProps) {
  const sites = useList<Schema["SiteState"]>("/sites", { alive: true }, []).data ?? [];
  const topics = new Set(sites.flatMap(({ descriptor }) => (descriptor.datasets ?? []).flatMap((one) => one.topics)));
  const tested = new Set(sites.flatMap(({ descriptor }) => (descriptor.verifier?.tests ?? []).map((one) => one.topic)));
  const text = (name: keyof Draft, label: string, type = "text", list?: string) => (
    <label>
      {label}
      <input
        name={name}
        type={type}
        list={list}
        min={type === "number" ? 0 : undefined}
        step="any"
        value={draft[name] as string}
        onInput={(event) => change({ [name]: event.currentTarget.value })}
      />
    </label>
  );
  return (
    <>
      <Known id="topics-known" topics={topics} />
      <Known id="topics-tested" topics={tested} />
      <div class="fields">
        {text("name", "Name")}
        {text("owner", "Owner")}
        {text("recipe", "Recipe")}
        {text("topics", "Topics of data, comma-separated", "text", "topics-known")}
      </div>
      <label>
        Configuration of the recipe, as JSON
        <textarea name="config" value={draft.config} onInput={(event) => change({ config: event.currentTarget.value })} />
      </label>
      <h3>Objectives</h3>
      {draft.objectives.map((one, at) => (
        <ObjectiveFields
          key={at}
          at={at}
          objective={one}
          change={(part) => change({ objectives: draft.objectives.map((old, n) => (n === at ? { ...old, ...part } : old)) })}
          remove={draft.objectives.length > 1 ? () => change({ objectives: draft.objectives.filter((_, n) => n !== at) }) : undefined}
        />
      ))}
      <button
        type="button"
        class="plain"
        onClick={() => change({ objectives: [...draft.objectives, { ...BLANK.objectives[0]!, name: `knows-${draft.objectives.length + 1}` }] })}
      >
        Another objective
      </button>
      <h3>Budget</h3>
      <div class="fields">
        {text("duration_s", "Seconds", "number")}
        {text("cost_usd", "USD", "number")}
        {text("examples", "Examples", "number")}
      </div>
    </>
  );
}

function Known({ id, topics }: { id: string; topics: Set<string> }) {
  return <datalist id={id}>{[...topics].sort().map((topic) => <option key={topic} value={topic} />)}</datalist>;
}

type ObjectiveProps = { at: number; objective: Objective; change: (part: Partial<Objective>) => void; remove?: () => void };

function ObjectiveFields({ at, objective, change, remove }: ObjectiveProps) {
  return (
    <fieldset class="fields">
      <legend class="unseen">Objective {at + 1}</legend>
      <label>Name<input value={objective.name} onInput={(event) => change({ name: event.currentTarget.value })} /></label>
      <label>Topic of the test<input name={`topic-${at}`} list="topics-tested" value={objective.topic} onInput={(event) => change({ topic: event.currentTarget.value })} /></label>
      <label>Metric<input value={objective.metric} onInput={(event) => change({ metric: event.currentTarget.value })} /></label>
      <label>
        At least
        <input type="number" min="0" max="1" step="0.01" name={`at-least-${at}`} value={objective.at_least} onInput={(event) => change({ at_least: event.currentTarget.value })} />
      </label>
      {remove && <button type="button" class="plain" onClick={remove}>Remove objective {at + 1}</button>}
    </fieldset>
  );
}

/** An intent is signed with its owner's key, which no browser has. */
function Handing({ draft }: { draft: Draft }) {
  const file = `${draft.name || "model"}.json`;
  const take = () => {
    try {
      save(file, JSON.stringify(written(draft), null, 2), "application/json");
    } catch {
      // Said beside the form already.
    }
  };
  return (
    <p>
      <button type="button" onClick={take}>Save the intent</button>{" "}
      <span class="quiet">
        Its owner signs and submits it: <code>daitn train -f {file}</code>
      </span>
    </p>
  );
}

function Verdict({ answer, failure, busy }: { answer?: Schema["Assessment"]; failure?: Failure; busy?: boolean }) {
  return (
    <Panel title="Is it feasible?" aside={busy && <span class="quiet">asking…</span>}>
      <div aria-live="polite">
        {failure && <Problem failure={failure} />}
        {!answer && !failure && !busy && (
          <p class="quiet">State who owns the model, the topics it may learn from, and on which topics it is tested for which value: this page then says whether that is feasible, and what would help.</p>
        )}
        {answer && (
          <p>
            <strong>{answer.feasible ? "Feasible." : "Not feasible."}</strong>{" "}
            {answer.feasible && answer.route && `Chance to reach every target: ${share(answer.route.chance)}.`}
          </p>
        )}
        {answer && answer.reasons.length > 0 && <ul>{answer.reasons.map((reason) => <li key={reason}>{reason}</li>)}</ul>}
      </div>
      {answer && answer.relaxations.length > 0 && (
        <>
          <h3>Any one of these would help</h3>
          <Table
            caption="Changes that would help"
            rows={answer.relaxations}
            empty=""
            columns={[
              { name: "field", show: (row) => row.field },
              { name: "now", show: (row) => row.current },
              { name: "change to", show: (row) => row.proposed },
              { name: "effect", show: (row) => row.effect },
            ]}
          />
        </>
      )}
      {answer?.route && (
        <>
          <h3>The expected route</h3>
          <Table
            caption="Expected route"
            rows={answer.route.visits}
            empty=""
            columns={[
              { name: "site", show: (visit) => visit.site },
              { name: "examples", as: counting, of: (visit) => visit.examples },
              { name: "takes", as: inSeconds, of: (visit) => visit.expected_s },
              { name: "cost", as: inDollars, of: (visit) => visit.expected_cost_usd },
              { name: "after it", show: (visit) => Object.entries(visit.expected).map(([name, value]) => `${name} ${score(value)}`).join(", ") },
            ]}
          />
        </>
      )}
      {answer && answer.rejections.length > 0 && (
        <>
          <h3>Left out</h3>
          <Rejections rows={answer.rejections} empty="" />
        </>
      )}
    </Panel>
  );
}

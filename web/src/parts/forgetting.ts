// What a model forgot on its way: each label before, at its best, and now.
import type { Schema } from "../api/client";

type Job = Schema["JobView"];

export type Label = { objective: string; label: string; first: number; best: number; now: number };

/** Of the models on the way to the best one, where verifiers publish labels; most forgotten first. */
export function forgotten(job: Job, entries: Schema["Entry"][]): Label[] {
  const facts = entries.map((entry) => entry.fact);
  const way = wayTo(job.model?.manifest, facts);
  const found: Label[] = [];
  for (const { name, topic, metric } of job.objectives) {
    const measured = new Map<string, Record<string, number>>();
    for (const fact of facts) {
      if (fact.type !== "verification" || fact.topic !== topic || fact.metric !== metric) continue;
      measured.set(fact.model, fact.by_label ?? {});
    }
    const values = new Map<string, number[]>();
    for (const model of way) {
      for (const [label, value] of Object.entries(measured.get(model) ?? {})) {
        values.set(label, [...(values.get(label) ?? []), value]);
      }
    }
    for (const [label, along] of values) {
      found.push({ objective: name, label, first: along[0]!, best: Math.max(...along), now: along.at(-1)! });
    }
  }
  return found.sort((one, other) => other.best - other.now - (one.best - one.now));
}

/** Models on the way to one, oldest first. */
function wayTo(model: string | undefined, facts: Schema["Entry"]["fact"][]): string[] {
  const bases = new Map<string, string>();
  for (const fact of facts) {
    if (fact.type === "visit") bases.set(fact.model_out, fact.model_in);
    if (fact.type === "merge") bases.set(fact.model_out, fact.base);
  }
  const way = new Set<string>();
  for (let at = model; at !== undefined && !way.has(at); at = bases.get(at)) way.add(at);
  return [...way].reverse();
}

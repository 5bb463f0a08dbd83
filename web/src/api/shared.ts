// The stream of all tabs of one session, as a worker that they share: a browser has six connections to a server, and a
// tab with a stream of its own would keep one.
import { PULSE_MS, Stream, type Told } from "./stream";

const tabs = new Set<MessagePort>();
let stream: Stream | null = null;
let latest: Told | null = null;

// Nothing tells a tab that its worker ended.
setInterval(() => tabs.forEach((tab) => tab.postMessage(null)), PULSE_MS);

addEventListener("connect", (event) => {
  const tab = (event as MessageEvent).ports[0]!;
  tab.onmessage = () => leave(tab); // It has nothing else to say.
  tabs.add(tab);
  if (latest) tab.postMessage({ ...latest, kind: "", data: "" });
  stream ??= new Stream("", hear);
});

function hear(told: Told): void {
  latest = told;
  for (const tab of tabs) tab.postMessage(told);
}

function leave(tab: MessagePort): void {
  tab.close();
  tabs.delete(tab);
  if (tabs.size) return;
  stream?.close();
  stream = latest = null;
}

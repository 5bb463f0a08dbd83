// What buttons do: one thing at a time, however often they are clicked.
import { useEffect, useRef, useState } from "preact/hooks";

import { failed, type Failure } from "../api/client";
import { listen } from "../api/live";

type State = { busy: boolean; failure?: Failure };

export type Action = State & {
  /** Does it, unless something is being done already; `question`: if the user agrees to that. */
  act: (what: () => Promise<unknown>, question?: string) => void;
};

/** `busy`: a button of it is to be disabled. `failure`: why it failed the last time; that nobody answers is said until somebody does. */
export function useAction(): Action {
  const [state, set] = useState<State>({ busy: false });
  const running = useRef(false); // The second of two clicks comes before a button is disabled.
  const answered = () => set((now) => (now.failure?.status === 0 ? { busy: now.busy } : now));
  useEffect(() => listen(["reset"], answered), []);
  const act: Action["act"] = (what, question) => {
    if (running.current || (question && !confirm(question))) return;
    running.current = true;
    set({ busy: true });
    const done = (failure?: Failure) => {
      running.current = false;
      set({ busy: false, failure });
    };
    what().then(() => done(), (error: unknown) => done(failed(error)));
  };
  return { ...state, act };
}

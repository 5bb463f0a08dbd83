import { useState } from "preact/hooks";

import { failed, type Failure, post } from "../api/client";
import { entered } from "../parts/form";
import { Panel, Problem } from "../parts/show";

/** Swaps a token for a cookie, which scripts cannot read. */
export async function signIn(token: string): Promise<void> {
  await post("/session", { token });
}

export function SignIn({ ways, done }: { ways: string[]; done: () => void }) {
  const [failure, fail] = useState<Failure>();
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const token = entered(event.currentTarget as HTMLFormElement, "token");
    signIn(token).then(done, (error: unknown) => fail(failed(error)));
  };
  return (
    <main class="sign-in" id="main" tabIndex={-1}>
      <h1>DA-ITN</h1>
      <Panel title="Sign in">
        {failure && <Problem failure={failure} />}
        <form onSubmit={submit}>
          <label>
            Token
            <input name="token" type="password" autocomplete="off" required />
          </label>
          <p><button type="submit">Sign in</button></p>
        </form>
        {ways.includes("oidc") && <p><a href="/api/v1/session/oidc">Sign in with your organisation</a></p>}
        <p class="quiet">
          <code>daitn dashboard</code> opens this page signed in; <code>daitn token create --center-api</code> makes a
          token that lasts.
        </p>
      </Panel>
    </main>
  );
}

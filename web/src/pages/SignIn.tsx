import type { ComponentChildren } from "preact";

import { post } from "../api/client";
import { useAction } from "../parts/action";
import { entered } from "../parts/form";
import { Panel, Problem } from "../parts/show";

/** Swaps a token for a cookie, which scripts cannot read. */
export async function signIn(token: string): Promise<void> {
  await post("/session", { token });
}

type SignInProps = { ways: string[]; done: () => Promise<void>; children: ComponentChildren };

export function SignIn({ ways, done, children }: SignInProps) {
  const { busy, failure, act } = useAction();
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const token = entered(event.currentTarget as HTMLFormElement, "token");
    act(() => signIn(token).then(done));
  };
  return (
    <main class="sign-in" id="main" tabIndex={-1}>
      <h1>DA-ITN</h1>
      <Panel title="Sign in">
        {children}
        {failure && <Problem failure={failure} />}
        <form onSubmit={submit}>
          <label>
            Token
            <input name="token" type="password" autocomplete="off" required />
          </label>
          <p><button type="submit" disabled={busy}>Sign in</button></p>
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

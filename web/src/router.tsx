// Pages by URL: everything that can be looked at has an address of its own.
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";

export const place = signal(new URL(location.href));

addEventListener("popstate", () => {
  place.value = new URL(location.href);
});

export function go(path: string, replace = false): void {
  history[replace ? "replaceState" : "pushState"](null, "", path);
  place.value = new URL(location.href);
}

/** A parameter of the current URL. */
export function parameter(name: string): string {
  return place.value.searchParams.get(name) ?? "";
}

/** Sets a parameter of the current URL, without a new entry in the history. */
export function setParameter(name: string, value: string): void {
  const url = new URL(place.value);
  if (value) url.searchParams.set(name, value);
  else url.searchParams.delete(name);
  go(url.pathname + url.search, true);
}

type LinkProps = { to: string; children: ComponentChildren; class?: string; current?: boolean };

export function Link({ to, children, class: name, current }: LinkProps) {
  const follow = (event: MouseEvent) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
    event.preventDefault();
    go(to);
    document.getElementById("main")?.focus();
  };
  return (
    <a href={to} class={name} onClick={follow} aria-current={current ? "page" : undefined}>
      {children}
    </a>
  );
}

/** The names in a path like `/jobs/:job`, if it matches. */
export function matched(pattern: string, path: string): Record<string, string> | null {
  const wanted = pattern.split("/");
  const given = path.replace(/\/+$/, "").split("/");
  if (path === "/") given.push("");
  if (wanted.length !== given.length) return null;
  const names: Record<string, string> = {};
  for (const [at, part] of wanted.entries()) {
    const value = given[at] ?? "";
    if (part.startsWith(":")) {
      try {
        names[part.slice(1)] = decodeURIComponent(value);
      } catch {
        return null;
      }
    } else if (part !== value) return null;
  }
  return names;
}

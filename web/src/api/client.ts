// What the control centre's API is asked, and the errors that it answers with.
import { signal } from "@preact/signals";

import type { components } from "./schema";

export type Schema = components["schemas"];
export type Page<T> = { items: T[]; next: string | null };
type Parameters = Record<string, string | number | boolean | null | undefined>;

const PREFIX = "/api/v1";
const MOST_MS = 60_000;

/** Why a request was not answered: an RFC 9457 problem, or nobody answered. */
export class Failure extends Error {
  constructor(
    readonly status: number,
    detail: string,
    readonly field = "",
    readonly fix = "",
  ) {
    super(detail);
  }
}

/** Why something that was asked for did not come. */
export function failed(error: unknown): Failure {
  return error instanceof Failure ? error : new Failure(0, String(error));
}

/** Who is signed in; none if nobody needs to. */
export const you = signal<Schema["You"] | null>(null);

/** Whether whoever is signed in may change what belongs to `owner`; without one, anything. */
export function mayChange(owner = you.value?.member): boolean {
  const { role, member } = you.value ?? {};
  return role !== "viewer" && (role !== "owner" || member === owner);
}

let signedOut = () => {};

/** Calls `handle` whenever the server says that nobody is signed in. */
export function whenSignedOut(handle: () => void): void {
  signedOut = handle;
}

/** The server says so. */
export function noteSignedOut(): void {
  signedOut();
}

let unanswered = () => {};

/** Calls `handle` whenever nobody takes a request, or its answer does not arrive whole. */
export function whenUnanswered(handle: () => void): void {
  unanswered = handle;
}

export function get<T>(path: string, parameters: Parameters = {}, signal?: AbortSignal): Promise<T> {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, String(value));
  }
  const asked = query.size ? `${path}?${query}` : path;
  return ask<T>("GET", asked, undefined, signal);
}

export function post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
  return ask<T>("POST", path, body, signal);
}

export function remove<T>(path: string): Promise<T> {
  return ask<T>("DELETE", path);
}

/** One name in a path. */
export function segment(name: string): string {
  return encodeURIComponent(name);
}

async function ask<T>(
  method: string,
  path: string,
  body?: unknown,
  signal?: AbortSignal,
): Promise<T> {
  const init: RequestInit = { method, credentials: "same-origin" };
  const late = AbortSignal.timeout(MOST_MS);
  init.signal = signal ? AbortSignal.any([signal, late]) : late;
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { "content-type": "application/json" };
  }
  let response: Response;
  try {
    response = await fetch(PREFIX + path, init);
  } catch (error) {
    if (signal?.aborted) throw error;
    if (!late.aborted) unanswered();
    throw new Failure(0, "the control centre does not answer", "", "see whether it runs");
  }
  if (response.ok) {
    try {
      return (response.status === 204 ? undefined : await response.json()) as T;
    } catch (error) {
      if (signal?.aborted) throw error;
      if (!late.aborted) unanswered();
      throw new Failure(0, "the control centre's answer did not arrive whole", "", "reload; see whether it runs");
    }
  }
  // A token that is refused ends no session.
  if (response.status === 401 && path !== "/session") noteSignedOut();
  const problem = (await response.json().catch(() => ({}))) as Partial<Schema["Problem"]>;
  throw new Failure(
    response.status,
    problem.detail ?? `the control centre answered ${response.status}`,
    problem.field,
    problem.fix,
  );
}

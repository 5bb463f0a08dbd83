// What a site and its deployments can take now, in a word.
import type { Schema } from "../api/client";

/** Why a site gets nothing new; empty if it does. */
export function out(site?: Schema["SiteState"]): "" | "lost" | "cordoned" | "draining" {
  if (!site) return "";
  if (!site.alive) return "lost";
  const { cordon } = site.descriptor;
  return cordon ? (cordon.draining ? "draining" : "cordoned") : "";
}

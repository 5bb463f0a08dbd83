// What is drawn while somebody moves a map. A browser without a graphics card spends most of a frame
// on laying canvases over each other, empty or not, and on the picture that tells what is under the
// mouse: neither is of use before the map stands still.
import type Sigma from "sigma";
import { NodePointProgram } from "sigma/rendering";
import type { ProgramInfo } from "sigma/rendering";
import type { RenderParams } from "sigma/types";

/** Canvases of the renderer that are shown at rest. It never writes at links, so that one stays hidden. */
const AT_REST = ["edges", "labels", "hovers", "hoverNodes"];
const NEVER = "edgeLabels";
const STILL_AFTER_MS = 200;

function moves(sigma: Sigma): boolean {
  const mouse = sigma.getMouseCaptor();
  return sigma.getCamera().isAnimated() || mouse.isMoving || mouse.currentWheelDirection !== 0;
}

/** Sites as points, which the mouse can find while the map stands still. */
export class SitePoints extends NodePointProgram {
  protected override renderProgram(params: RenderParams, program: ProgramInfo): void {
    if (!program.isPicking || !moves(this.renderer)) super.renderProgram(params, program);
  }
}

/** Hides what is of no use while the map moves, and draws all of it once it stands still. Returns how to end this. */
export function hideWhileMoving(sigma: Sigma): () => void {
  const canvases = sigma.getCanvases();
  let waiting: number | undefined;
  canvases[NEVER]!.style.display = "none";
  const look = () => {
    const moving = moves(sigma);
    for (const name of AT_REST) canvases[name]!.style.display = moving ? "none" : "";
    window.clearTimeout(waiting);
    if (moving) waiting = window.setTimeout(() => sigma.scheduleRender(), STILL_AFTER_MS);
  };
  sigma.on("beforeRender", look);
  return () => window.clearTimeout(waiting);
}

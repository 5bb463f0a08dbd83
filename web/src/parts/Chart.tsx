// Lines over visits or time.
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { ink, style } from "./palette";
import { savePicture } from "./picture";
import "uplot/dist/uPlot.min.css";

export type Series = { name: string; values: (number | null)[]; target?: number };

const HEIGHT = 220;
const COLOURS = ["--line-1", "--line-2", "--line-3", "--line-4"];

type ChartProps = { label: string; x: number[]; series: Series[]; xName: string };

/** Values in [0, 1]; the target of each as a dashed line of the same colour. */
export function Chart({ label, x, series, xName }: ChartProps) {
  const holder = useRef<HTMLDivElement>(null);
  const scheme = style.value;
  const key = JSON.stringify([x, series]);
  useEffect(() => {
    const element = holder.current;
    if (!element) return;
    const colour = (at: number) => ink(COLOURS[at % COLOURS.length]!);
    const quiet = ink("--ink-quiet");
    const grid = { stroke: ink("--rule"), width: 1 };
    const lines = series.flatMap((one, at) => {
      const line = { label: one.name, stroke: colour(at), width: 2, points: { show: true, size: 7 } };
      if (one.target === undefined) return [line];
      return [line, { label: `${one.name}, target`, stroke: colour(at), width: 1, dash: [5, 4], points: { show: false } }];
    });
    const data = series.flatMap((one) =>
      one.target === undefined ? [one.values] : [one.values, x.map(() => one.target!)],
    );
    const plot = new uPlot(
      {
        width: element.clientWidth,
        height: HEIGHT,
        scales: { x: { time: false }, y: { range: [0, 1] } },
        axes: [
          { stroke: quiet, grid, label: xName, incrs: [1, 2, 5, 10, 20, 50, 100] },
          { stroke: quiet, grid },
        ],
        legend: { live: false },
        series: [{ label: xName }, ...lines],
      },
      [x, ...data] as uPlot.AlignedData,
      element,
    );
    const fit = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height: HEIGHT }));
    fit.observe(element);
    return () => {
      fit.disconnect();
      plot.destroy();
    };
    // `key` stands for the values: the same ones in a new array are drawn already.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [key, xName, scheme]);
  const picture = () => {
    const drawn = holder.current?.querySelector("canvas");
    if (drawn) savePicture(`${label}.png`, [drawn], drawn.width, drawn.height);
  };
  return (
    <>
      <div class="chart" ref={holder} role="img" aria-label={label} />
      <footer class="under">
        <button type="button" class="plain" onClick={picture}>Picture<span class="unseen"> of {label}</span></button>
      </footer>
    </>
  );
}

// Tables: what is listed can be taken along, as CSV or JSON.
import type { ComponentChildren } from "preact";

import type { More } from "../api/loading";
import { useAction } from "./action";
import { at, type Figure } from "./columns";
import { UNKNOWN } from "./format";
import { Empty, Problem } from "./show";

type Told<T> = {
  name: string;
  show: (row: T) => ComponentChildren;
  /** What stands in exports: what is shown, if that is text; null for what can only be seen. */
  value?: ((row: T) => string | number | boolean | null) | null;
  number?: boolean;
};

export type Column<T> = Told<T> | { name: string; as: Figure; of: (row: T) => number | null | undefined };

/** A column as it is shown and exported. */
function told<T>(column: Column<T>): Told<T> & { exported: string } {
  if (!("as" in column)) return { ...column, exported: column.name };
  const { name, as, of } = column;
  const write = as.value;
  return {
    name,
    exported: as.unit ? `${name} (${as.unit})` : name,
    show: (row) => as.show(of(row)),
    value: (row) => (write ? write(of(row)) : (of(row) ?? null)),
    number: as !== at,
  };
}

type TableProps<T> = {
  caption: string;
  rows: T[];
  columns: Column<T>[];
  empty: ComponentChildren;
  more?: More<T>;
};

export function Table<T>({ caption, rows, columns: stated, empty, more }: TableProps<T>) {
  const { busy, failure, act } = useAction();
  const columns = stated.map(told);
  if (rows.length === 0) return <Empty>{empty}</Empty>;
  /** Saves the whole list, also what is not shown yet. */
  const take = (ending: string, type: string, write: (all: T[]) => string) => () => {
    const taken = (all: T[]) => save(`${caption}.${ending}`, write(all), type);
    if (more) act(() => more.all().then(taken));
    else taken(rows);
  };
  return (
    <>
      <div class="scroll" tabIndex={0} role="region" aria-label={`${caption}, a table`}>
        <table>
          <caption class="unseen">{caption}</caption>
          <thead>
            <tr>
              {columns.map((column) => (
                <th key={column.name} scope="col" class={column.number ? "number" : undefined}>
                  {column.name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((row, at) => (
              <tr key={at}>
                {columns.map((column) => (
                  <td key={column.name} class={column.number ? "number" : undefined}>
                    {column.show(row)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <footer class="under">
        {more && <button type="button" onClick={more.show}>Show more</button>}
        <span class="quiet">{rows.length} shown{more && ", exports have all"}</span>
        <button type="button" class="plain" disabled={busy} onClick={take("csv", "text/csv", (all) => csv(all, stated))}>CSV</button>
        <button type="button" class="plain" disabled={busy} onClick={take("json", "application/json", (all) => JSON.stringify(all, null, 2))}>JSON</button>
      </footer>
      {failure && <Problem failure={failure} />}
    </>
  );
}

/**
 * RFC 4180. A text that a spreadsheet would take for a formula is marked as text; what is not known is
 * empty.
 */
export function csv<T>(rows: T[], columns: Column<T>[]): string {
  const cell = (value: string | number | bigint | boolean | null | undefined) => {
    if (value == null || value === UNKNOWN) return "";
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const taken = columns.map(told).filter((column) => column.value !== null);
  const lines = rows.map((row) =>
    taken.map((column) => {
      const shown = column.value ? column.value(row) : column.show(row);
      return cell(typeof shown === "object" ? "" : shown);
    }),
  );
  return [taken.map((column) => cell(column.exported)), ...lines].map((one) => one.join(",")).join("\r\n");
}

export function save(name: string, content: BlobPart, type: string): void {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name.replaceAll(/[^\w.-]+/g, "-");
  link.click();
  URL.revokeObjectURL(url);
}

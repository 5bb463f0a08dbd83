// Tables: what is listed can be taken along, as CSV or JSON.
import type { ComponentChildren } from "preact";

import { Empty } from "./show";

export type Column<T> = {
  name: string;
  show: (row: T) => ComponentChildren;
  /** What stands in exports; what is shown, if that is text. */
  value?: (row: T) => string | number | boolean | null;
  number?: boolean;
};

type TableProps<T> = {
  caption: string;
  rows: T[];
  columns: Column<T>[];
  empty: ComponentChildren;
  more?: () => void;
};

export function Table<T>({ caption, rows, columns, empty, more }: TableProps<T>) {
  if (rows.length === 0) return <Empty>{empty}</Empty>;
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
        {more && <button onClick={more}>Show more</button>}
        <span class="quiet">{rows.length} shown</span>
        <button class="plain" onClick={() => save(`${caption}.csv`, csv(rows, columns), "text/csv")}>
          CSV
        </button>
        <button
          class="plain"
          onClick={() => save(`${caption}.json`, JSON.stringify(rows, null, 2), "application/json")}
        >
          JSON
        </button>
      </footer>
    </>
  );
}

/** RFC 4180. A text that a spreadsheet would take for a formula is marked as text. */
export function csv<T>(rows: T[], columns: Column<T>[]): string {
  const cell = (value: string | number | bigint | boolean | null | undefined) => {
    if (value == null) return "";
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = rows.map((row) =>
    columns.map((column) => {
      const shown = column.value ? column.value(row) : column.show(row);
      return cell(typeof shown === "object" ? "" : shown);
    }),
  );
  return [columns.map((column) => cell(column.name)), ...lines].map((one) => one.join(",")).join("\r\n");
}

export function save(name: string, content: BlobPart, type: string): void {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name.replaceAll(/[^\w.-]+/g, "-");
  link.click();
  URL.revokeObjectURL(url);
}

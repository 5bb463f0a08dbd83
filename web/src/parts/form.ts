// What people entered.

/** What stands in a field of a form, without blanks around it; empty if there is nothing. */
export function entered(form: HTMLFormElement, field: string): string {
  const value = new FormData(form).get(field);
  return typeof value === "string" ? value.trim() : "";
}

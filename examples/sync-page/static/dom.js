// Elements and formats.  Texts from outside become text nodes and nothing else: see element().

export const byId = (id) => document.getElementById(id);

export function element(name, text, ...children) {
  const made = document.createElement(name);
  made.textContent = text ?? "";
  made.append(...children);
  return made;
}

export function withClass(name, made) {
  made.className = name;
  return made;
}

export const number = (value) => value?.toLocaleString("en-US") ?? "";
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;
export const inWords = ({ added, updated, deleted, missing }) => [[added, "added"], [updated, "updated"],
  [deleted, "deleted"], [missing, "not listed, but kept"]]
  .filter(([value]) => value).map(([value, what]) => `${number(value)} ${what}`).join(", ");
export const date = (value) => value === "9999-12-31" ? "no end" : value ?? "";
export const time = (value) => value
  ? new Date(value).toLocaleString("sv-SE", { dateStyle: "short", timeStyle: "short" }) : "";

// PostgreSQL's messages begin in lower case and have no full stop
export function sentence(text) {
  const begun = String(text ?? "").replace(/^./u, (first) => first.toUpperCase());
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

// Columns are [title, function of a row, class]; the function returns a text or an element
export function fillTable(id, columns, rows) {
  const head = columns.map(([title, , style = ""]) => {
    const cell = withClass(style, element("th", title));
    cell.scope = "col";
    return cell;
  });
  const body = rows.map((row) => element("tr", "", ...columns.map(([, value, style = ""]) => {
    const cell = withClass(style, element("td", "", value(row) ?? ""));
    cell.title = cell.textContent;      // where there is no room for all of it
    return cell;
  })));
  byId(id).replaceChildren(element("thead", "", element("tr", "", ...head)), element("tbody", "", ...body));
  byId(id).hidden = rows.length === 0;
}

export function fillSelect(select, values, chosen) {
  select.replaceChildren(...values.map((value) => {
    const option = element("option", value || "all");
    option.value = value;               // the text's own blanks would not count
    option.selected = value === chosen;
    return option;
  }));
}

// A button keeps the focus when it is not to be used
export function enable(id, enabled) {
  byId(id).setAttribute("aria-disabled", String(!enabled));
}

export const isEnabled = (id) => byId(id).getAttribute("aria-disabled") !== "true";

"use strict";
// Lists the blocks of the report: filters, pages, details. Texts reach the page as text nodes only.
(() => {
  const FIELDS = ["height", "verdict", "layers", "kinds", "contracts", "differences", "reason", "error", "txs", "consensus", "samples"];
  const PAGE = 25;
  const source = document.getElementById("data");
  const list = document.getElementById("list");
  if (!source || !list) return;
  document.documentElement.classList.add("scripting");

  const data = JSON.parse(source.textContent);
  const text = (index) => data.texts[index];
  const blocks = data.blocks.map((row) => {
    const block = Object.fromEntries(FIELDS.map((name, place) => [name, row[place]]));
    block.verdict = text(block.verdict);
    block.kinds = block.kinds.map(text);
    block.contracts = block.contracts.map(text);
    block.reason = text(block.reason);
    block.error = text(block.error);
    block.haystack = [block.height, block.verdict, ...block.kinds, ...block.contracts, block.reason, block.error,
      ...block.samples.flatMap((s) => [s[2], s[3], s[4], s[5]].map(text))].join("\n").toLowerCase();
    return block;
  });
  const say = new Intl.NumberFormat("en-US");

  const el = (name, attributes, ...inner) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...inner.filter((one) => one !== null && one !== undefined && one !== ""));
    return made;
  };
  const options = (first, values, name) => [el("option", { value: "" }, first), ...values.map((v) => el("option", { value: v }, name ? name(v) : v))];
  const distinct = (pick) => [...new Set(blocks.flatMap(pick))].sort();

  const wanted = {
    words: el("input", { type: "search", id: "f-words", placeholder: "height, field, contract, error …", autocomplete: "off" }),
    verdict: el("select", { id: "f-verdict" }, ...options("every verdict", distinct((b) => [b.verdict]))),
    layer: el("select", { id: "f-layer" }, ...options("every layer", distinct((b) => [...b.layers]), (v) => `${data.layers[v]} (${v})`)),
    kind: el("select", { id: "f-kind" }, ...options("every kind", distinct((b) => b.kinds).slice(0, 200))),
    contract: el("select", { id: "f-contract" }, ...options("every contract", distinct((b) => b.contracts).slice(0, 500))),
    from: el("input", { type: "text", inputmode: "numeric", class: "height", id: "f-from", autocomplete: "off" }),
    to: el("input", { type: "text", inputmode: "numeric", class: "height", id: "f-to", autocomplete: "off" }),
    order: el("select", { id: "f-order" }, el("option", { value: "" }, "gravest first"), el("option", { value: "height" }, "by height")),
  };
  const labels = { words: "Search", verdict: "Verdict", layer: "Layer", kind: "Kind", contract: "Contract", from: "From height", to: "To height", order: "Order" };
  const reset = el("button", { type: "button", id: "f-reset" }, "Clear");
  const tools = el("div", { class: "tools", role: "search" }, ...Object.keys(labels).map((n) => el("label", {}, labels[n], wanted[n])), reset);
  const said = el("span", { class: "said", role: "status", "aria-live": "polite", id: "said" });
  const back = el("button", { type: "button", id: "back" }, "Previous");
  const next = el("button", { type: "button", id: "next" }, "Next");
  list.before(tools);
  list.after(el("div", { class: "pager" }, said, back, next));

  let page = 0;
  const height = (field) => {
    const digits = wanted[field].value.replace(/\D/g, "");
    return digits ? Number(digits) : null;
  };
  const passing = () => {
    const words = wanted.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [from, to] = [height("from"), height("to")];
    return blocks.filter((b) =>
      (!wanted.verdict.value || b.verdict === wanted.verdict.value) &&
      (!wanted.layer.value || b.layers.includes(wanted.layer.value)) &&
      (!wanted.kind.value || b.kinds.includes(wanted.kind.value)) &&
      (!wanted.contract.value || b.contracts.includes(wanted.contract.value)) &&
      (from === null || b.height >= from) && (to === null || b.height <= to) &&
      words.every((word) => b.haystack.includes(word)))
      .sort((a, b) => (wanted.order.value ? 0 : data.order.indexOf(a.verdict) - data.order.indexOf(b.verdict)) || a.height - b.height);
  };

  // where two values differ: what they share at both ends stays plain
  const marked = (value, other) => {
    let start = 0;
    while (start < value.length && start < other.length && value[start] === other[start]) start += 1;
    let end = 0;
    while (end < value.length - start && end < other.length - start && value[value.length - 1 - end] === other[other.length - 1 - end]) end += 1;
    const middle = value.slice(start, value.length - end);
    return el("code", {}, value.slice(0, start), middle ? el("mark", {}, middle) : "", value.slice(value.length - end));
  };
  const about = (b) => {
    const parts = [`${say.format(b.txs)} transactions`];
    if (b.reason) parts.push(`reason: ${b.reason}`);
    if (b.verdict === "diverged") parts.push(b.consensus ? "differs in what the chain settles" : "differs only in fields the chain does not settle");
    return parts.join(" · ");
  };
  const detail = (b) => {
    const inner = [el("p", { class: "about" }, about(b))];
    if (b.samples.length) {
      const head = el("tr", {}, ...["what", "where", "shadow", "canonical"].map((name) => el("th", { scope: "col" }, name)));
      const rows = b.samples.map(([layer, kind, place, slot, shadow, canonical]) =>
        el("tr", {}, el("th", { scope: "row" }, `${data.layers[layer]}: ${text(kind)}`),
          el("td", {}, el("code", {}, text(place)), text(slot) ? el("br") : "", text(slot) ? el("code", {}, text(slot)) : ""),
          el("td", {}, marked(text(shadow), text(canonical))), el("td", {}, marked(text(canonical), text(shadow)))));
      inner.push(el("table", { class: "sides" }, el("thead", {}, head), el("tbody", {}, ...rows)));
    }
    if (b.error) inner.push(el("p", { class: "about" }, "Error: ", el("code", {}, b.error)));
    const more = b.differences > b.samples.length ? `${say.format(b.differences)} differences in all. ` : "";
    inner.push(el("p", { class: "about" }, `${more}Whole report: `, el("code", {}, `seiops report divergence ${data.place} --height ${b.height}`)));
    return el("tr", { class: "detail" }, el("td", { colspan: "5" }, ...inner));
  };
  const row = (b) => {
    const open = el("button", { type: "button", class: "open-row", "aria-expanded": "false" }, say.format(b.height));
    const kinds = b.kinds.join(", ") || b.reason || b.error;
    const made = el("tr", {}, el("th", { scope: "row" }, open), el("td", {}, el("span", { class: `pill p-${b.verdict}` }, b.verdict)),
      el("td", {}, [...b.layers].map((layer) => data.layers[layer]).join(", ")),
      el("td", {}, kinds, b.contracts.length ? el("br") : "", b.contracts.length ? el("code", {}, b.contracts.join(", ")) : ""),
      el("td", { class: "num" }, say.format(b.differences)));
    open.addEventListener("click", () => {
      const shown = open.getAttribute("aria-expanded") === "true";
      open.setAttribute("aria-expanded", String(!shown));
      if (shown) made.nextSibling.remove(); else made.after(detail(b));
    });
    return made;
  };

  const show = () => {
    const found = passing();
    const pages = Math.max(Math.ceil(found.length / PAGE), 1);
    page = Math.min(page, pages - 1);
    const here = found.slice(page * PAGE, (page + 1) * PAGE);
    const head = el("tr", {}, ...["height", "verdict", "layers", "what", "differences"].map((name) => el("th", { scope: "col", class: name === "differences" ? "num" : null }, name)));
    const table = el("table", { class: "tablelike" }, el("caption", {}, "Blocks that are not clean"), el("thead", {}, head), el("tbody", {}, ...here.map(row)));
    list.replaceChildren(here.length ? table : el("p", { class: "none" }, "No block passes these filters."));
    const range = here.length ? `${say.format(page * PAGE + 1)} to ${say.format(page * PAGE + here.length)} of ` : "";
    said.textContent = `${range}${say.format(found.length)} ${found.length === 1 ? "block" : "blocks"}${found.length < blocks.length ? `, filtered from ${say.format(blocks.length)}` : ""}`;
    back.disabled = page === 0;
    next.disabled = page >= pages - 1;
    for (const column of document.querySelectorAll(".column")) {
      column.classList.toggle("chosen", height("from") === Number(column.dataset.from) && height("to") === Number(column.dataset.to));
    }
  };
  const again = () => { page = 0; show(); };
  for (const field of Object.values(wanted)) field.addEventListener("input", again);
  back.addEventListener("click", () => { page -= 1; show(); });
  next.addEventListener("click", () => { page += 1; show(); });
  reset.addEventListener("click", () => { for (const field of Object.values(wanted)) field.value = ""; again(); wanted.words.focus(); });
  for (const column of document.querySelectorAll(".column")) {
    column.addEventListener("click", () => {
      wanted.from.value = column.dataset.from;
      wanted.to.value = column.dataset.to;
      again();
      document.getElementById("blocks").scrollIntoView({ block: "start" });
    });
  }
  show();
})();

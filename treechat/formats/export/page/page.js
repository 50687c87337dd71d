
(() => {
  "use strict";
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const sections = [...document.querySelectorAll("main > section")];
  const rows = [...byId("rows").children];
  const indexOf = new Map(sections.map((section, index) => [section.id, index]));
  const up = sections.map((section) => (section.dataset.up ? indexOf.get(section.dataset.up) : -1));
  const below = sections.map(() => []);
  up.forEach((above, index) => above >= 0 && below[above].push(index));

  // The position: the chosen section, and the visible path through it.
  let chosen = 0;
  let shown = [];
  let wanted = null;
  let article = null;
  const visited = new Map();
  const folded = new Set();

  function siblings(index) {
    return up[index] >= 0 ? below[up[index]] : [index];
  }

  function pathThrough(index) {
    const path = [];
    for (let at = index; at >= 0; at = up[at]) {
      if (up[at] >= 0) visited.set(up[at], at);
      path.push(at);
    }
    path.reverse();
    for (let at = index; below[at].length; ) {
      at = visited.get(at) ?? below[at][0];
      path.push(at);
    }
    return path;
  }

  /** Only where the path differs from the one shown before is anything drawn anew. */
  function show(index) {
    const path = pathThrough(index);
    let same = 0;
    while (same < path.length && path[same] === shown[same]) same++;
    for (const at of shown.slice(same)) {
      sections[at].classList.remove("shown");
      rows[at].classList.remove("on");
    }
    for (const at of path.slice(same)) {
      sections[at].classList.add("shown");
      rows[at].classList.add("on");
    }
    path.slice(Math.max(0, same - 1)).forEach(markWays);
    const isOther = same < path.length || same < shown.length;
    link(chosen).removeAttribute("aria-current");
    link(index).setAttribute("aria-current", "true");
    chosen = index;
    shown = path;
    let unfolded = false;
    for (let at = up[chosen]; folded.size && at >= 0; at = up[at]) unfolded = folded.delete(at) || unfolded;
    if (unfolded) drawFolds();
    link(chosen).scrollIntoView({ block: "nearest" });
    if (isOther) paint();
  }

  function markWays(index) {
    const ways = sections[index].querySelector(":scope > .ways");
    if (!ways) return;
    const taken = below[index].indexOf(visited.get(index) ?? below[index][0]);
    ways.querySelector("a[aria-current]")?.removeAttribute("aria-current");
    const list = ways.lastElementChild;
    const way = list.children[taken];
    way.firstElementChild.setAttribute("aria-current", "true");
    if (list.children.length > 6) {
      const lower = way.getBoundingClientRect().top - list.getBoundingClientRect().top;
      list.scrollTop += lower - list.clientHeight / 2;
    }
    let bar = ways.querySelector(".switch");
    if (!bar) {
      bar = document.createElement("div");
      bar.className = "switch";
      bar.append(button("\u2039", "Alternative before (h)", () => turn(index, -1)), document.createElement("span"),
                 button("\u203a", "Alternative after (l)", () => turn(index, 1)));
      ways.prepend(bar);
    }
    bar.children[1].textContent = `${taken + 1} of ${below[index].length}`;
  }

  function button(text, title, action) {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.title = title;
    made.addEventListener("click", action);
    return made;
  }

  /** Another way on from a section. */
  function turn(index, by) {
    const ways = below[index];
    const at = ways.indexOf(visited.get(index) ?? ways[0]);
    const next = ways[(at + by + ways.length) % ways.length];
    go(sections[next].querySelector("article"));
  }

  function sectionOf(element) {
    return indexOf.get(element.closest("main > section").id);
  }

  /** Show the branch with this message and go there; the address names it, so that back goes back. */
  function go(element) {
    if (!element) return;
    const target = "#" + element.id;
    if (location.hash === target) arrive();
    else location.hash = target;
  }

  function arrive() {
    const name = location.hash.slice(1);
    const element = name && (byId(name) || byId(decoded(name)));
    if (!element || !element.closest("main")) return;
    const index = sectionOf(element);
    if (!sections[index].classList.contains("shown") || index !== chosen) show(index);
    select(element.closest("article") || sections[index].querySelector("article"), element);
  }

  function decoded(name) {
    try {
      return decodeURIComponent(name);
    } catch {
      return name;
    }
  }

  function select(next, target) {
    article = next;
    settle(target || next, "start");
    const typing = document.activeElement?.closest("#tree, header");
    if (!typing) next?.focus({ preventScroll: true });
  }

  /** Scroll there; what is far away is jumped to. */
  function settle(element, block) {
    wanted = element;
    if (!element) return;
    if (Math.abs(element.getBoundingClientRect().top) < 2 * innerHeight) element.scrollIntoView({ block });
    else jump(element, block, 30);
  }

  /** Jump there, and again while what comes into sight turns out to have another height than was guessed. */
  function jump(element, block, tries) {
    element.scrollIntoView({ block, behavior: "instant" });
    const { top } = element.getBoundingClientRect();
    const look = () => {
      const moved = element.getBoundingClientRect().top - top;
      if (element === wanted && tries > 1 && Math.abs(moved) > 1) jump(element, block, tries - 1);
    };
    requestAnimationFrame(() => requestAnimationFrame(look));
  }

  for (const kind of ["wheel", "touchmove", "pointerdown", "keydown"]) {
    // Do not move a user who scrolls.
    addEventListener(kind, () => { wanted = null; }, { capture: true, passive: true });
  }

  // The tree

  function link(index) {
    return rows[index].querySelector("a");
  }

  rows.forEach((row, index) => {
    if (!below[index].length) {
      const pad = document.createElement("span");
      pad.className = "pad";
      row.prepend(pad);
      return;
    }
    const fold = button("\u25be", "Fold or unfold (space)", () => toggleFold(index));
    fold.className = "fold";
    fold.tabIndex = -1;
    fold.setAttribute("aria-expanded", "true");
    fold.setAttribute("aria-label", "Branches below");
    row.prepend(fold);
  });

  function toggleFold(index) {
    if (!below[index]?.length) return;
    if (!folded.delete(index)) folded.add(index);
    drawFolds();
  }

  function drawFolds() {
    const hidden = new Uint8Array(rows.length);
    rows.forEach((row, index) => {
      const above = up[index];
      hidden[index] = above >= 0 && (hidden[above] || folded.has(above)) ? 1 : 0;
      if (row.hidden !== Boolean(hidden[index])) row.hidden = Boolean(hidden[index]);
      if (!below[index].length) return;
      const fold = row.firstElementChild;
      const open = String(!folded.has(index));
      if (fold.getAttribute("aria-expanded") !== open) {
        fold.setAttribute("aria-expanded", open);
        fold.textContent = open === "true" ? "\u25be" : "\u25b8";
      }
    });
  }

  function rowKey(event) {
    const row = event.target.closest("#rows > li");
    if (!row) return false;
    const index = rows.indexOf(row);
    const visible = rows.filter((other) => !other.hidden);
    const at = visible.indexOf(row);
    switch (event.key) {
      case "ArrowDown": visible[at + 1]?.querySelector("a").focus(); return true;
      case "ArrowUp": visible[at - 1]?.querySelector("a").focus(); return true;
      case "Home": visible[0].querySelector("a").focus(); return true;
      case "End": visible[visible.length - 1].querySelector("a").focus(); return true;
      case " ": toggleFold(index); return true;
      case "ArrowLeft":
        if (below[index].length && !folded.has(index)) toggleFold(index);
        else if (up[index] >= 0) link(up[index]).focus();
        return true;
      case "ArrowRight":
        if (folded.has(index)) toggleFold(index);
        else if (below[index].length) link(below[index][0]).focus();
        return true;
    }
    return false;
  }

  // Search

  const MOST_HITS = 200;
  const search = byId("search");
  const hits = byId("hits");
  let words = null;
  let found = [];
  let texts = null;
  let timer = 0;

  function find() {
    const typed = search.value.trim().split(/\s+/).filter(Boolean);
    words = typed.length ? typed.map((word) => word.replace(/[.*+?^${}()|[\]\\\/-]/g, "\\$&")) : null;
    found = [];
    hits.replaceChildren();
    hits.hidden = !words;
    byId("count").textContent = "";
    if (words) {
      texts ??= [...document.querySelectorAll("article")].map((each) => [each, each.querySelector(":scope > .text").textContent]);
      const tests = words.map((word) => new RegExp(word, "iu"));
      found = texts.filter(([, text]) => tests.every((test) => test.test(text)));
      found.slice(0, MOST_HITS).forEach(([each, text]) => hits.append(hit(each, text, tests[0])));
      byId("count").textContent = found.length === 1 ? "1 message" : `${found.length.toLocaleString("en")} messages`;
    }
    paint();
  }

  function hit(each, text, test) {
    text = text.replace(/\s+/g, " ").trim();
    const at = Math.max(0, text.search(test));
    const from = at > 20 ? text.indexOf(" ", at - 20) + 1 : 0;
    const line = document.createElement("a");
    line.href = "#" + each.id;
    const shownText = document.createElement("bdi");
    shownText.textContent = (from ? "\u2026" : "") + text.slice(from, at + 80);
    line.append(shownText);
    const item = document.createElement("li");
    item.append(line);
    return item;
  }

  function nextHit(by) {
    if (!found.length) return;
    const at = found.findIndex(([each]) => each === article);
    go(found[at < 0 ? (by > 0 ? 0 : found.length - 1) : (at + by + found.length) % found.length][0]);
  }

  /** Mark what was searched for in the branch that is shown. */
  function paint() {
    if (!window.CSS?.highlights) return;
    CSS.highlights.delete("hit");
    if (!words) return;
    const any = new RegExp(words.join("|"), "giu");
    const ranges = [];
    for (const index of shown) {
      const walker = document.createTreeWalker(sections[index], NodeFilter.SHOW_TEXT);
      while (walker.nextNode() && ranges.length < 2000) {
        if (!walker.currentNode.parentElement.closest("article > .text")) continue;
        for (const match of walker.currentNode.data.matchAll(any)) {
          const range = new Range();
          range.setStart(walker.currentNode, match.index);
          range.setEnd(walker.currentNode, match.index + match[0].length);
          ranges.push(range);
        }
      }
    }
    CSS.highlights.set("hit", new Highlight(...ranges));
  }

  // Colours

  const THEMES = ["auto", "dark", "light"];

  function setTheme(name) {
    if (name === "auto") delete root.dataset.theme;
    else root.dataset.theme = name;
    byId("theme").textContent = `Theme: ${name}`;
    try {
      localStorage.setItem("treechat-theme", name);
    } catch {
      // Without storage the choice is not saved.
    }
  }

  function nextTheme() {
    setTheme(THEMES[(THEMES.indexOf(root.dataset.theme ?? "auto") + 1) % THEMES.length]);
  }

  // Keys

  function step(by) {
    let next = by > 0 ? article?.nextElementSibling : article?.previousElementSibling;
    if (next?.localName !== "article") {
      let at = article ? shown.indexOf(sectionOf(article)) + by : 0;
      while (shown[at] !== undefined && !sections[shown[at]].querySelector(":scope > article")) at += by;
      const found = shown[at] === undefined ? [] : sections[shown[at]].querySelectorAll(":scope > article");
      next = found[by > 0 ? 0 : found.length - 1];
    }
    if (next) go(next);
  }

  /** The section at or above the message that has alternatives, else the first fork below it. */
  function forked() {
    const at = article ? sectionOf(article) : chosen;
    for (let index = at; index >= 0; index = up[index]) if (siblings(index).length > 1) return index;
    return shown.find((index) => siblings(index).length > 1) ?? -1;
  }

  function alternative(by) {
    const index = forked();
    if (index >= 0) {
      visited.set(up[index], index);
      turn(up[index], by);
    }
  }

  function fork(by) {
    const at = shown.indexOf(article ? sectionOf(article) : chosen);
    const order = by < 0 ? shown.slice(0, at).reverse() : shown.slice(at + 1);
    const next = order.find((index) => sections[index].querySelector("article"));
    if (next !== undefined) go(sections[next].querySelector("article"));
  }

  function toggleTree() {
    root.classList.toggle(matchMedia("(max-width: 48rem)").matches ? "open" : "plain");
  }

  const KEYS = {
    j: () => step(1), k: () => step(-1), h: () => alternative(-1), l: () => alternative(1),
    "[": () => fork(-1), "]": () => fork(1), "/": () => search.focus(), n: () => nextHit(1), N: () => nextHit(-1),
    t: nextTheme, b: toggleTree, f: () => toggleFold(below[chosen].length ? chosen : up[chosen]),
    F: () => {
      if (folded.size) folded.clear();
      else below.forEach((ways, index) => ways.length && folded.add(index));
      drawFolds();
    },
    "?": () => (byId("keys").hidden = !byId("keys").hidden),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target === search) {
      if (event.key === "Escape") {
        search.value = "";
        find();
        search.blur();
      } else if (event.key === "Enter") {
        clearTimeout(timer);
        find();
        nextHit(event.shiftKey ? -1 : 1);
      } else return;
    } else if (!rowKey(event)) {
      const action = KEYS[event.key];
      if (!action) return;
      action();
    }
    event.preventDefault();
  });

  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(find, 150);
  });
  byId("theme").addEventListener("click", nextTheme);
  byId("toggle").addEventListener("click", toggleTree);
  byId("help").addEventListener("click", KEYS["?"]);
  byId("tree").addEventListener("click", (event) => {
    if (event.target.closest("a")) {
      root.classList.remove("open");
      if (event.target.closest("a").hash === location.hash) arrive();
    }
  });
  document.querySelector("main").addEventListener("click", (event) => {
    const clicked = event.target.closest("article");
    if (clicked) article = clicked;
  });
  window.addEventListener("hashchange", arrive);

  try {
    const kept = localStorage.getItem("treechat-theme");
    if (THEMES.includes(kept)) setTheme(kept);
  } catch {
    // Without storage there is no saved choice.
  }
  const current = document.querySelector("article[data-current]");
  show(current ? sectionOf(current) : below[0]?.[0] ?? 0);
  if (location.hash) arrive();
  else if (current) {
    article = current;
    settle(current, "nearest");
  }
})();

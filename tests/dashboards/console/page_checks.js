// Page checks: what a test asks of a page as the browser has laid it out. Each function returns the list of what is wrong.
"use strict";

// WCAG 2.2 AA: text has a contrast of 4.5 : 1, large text of 3 : 1, against every colour of its ground.
function contrast() {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const linear = (part) => (part / 255 <= 0.03928 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const over = (top, under) => [0, 1, 2].map((at) => top[at] * top[3] + under[at] * (1 - top[3]));
  const grounds = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const style = getComputedStyle(one);
      if (style.backgroundImage.startsWith("linear-gradient")) return style.backgroundImage.match(/rgba?\([^)]*\)/g).map(parse);
      const colour = parse(style.backgroundColor);
      if (colour[3] === 1) return [colour];
    }
    return [[255, 255, 255, 1]];
  };
  const bad = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const words = walk.currentNode.textContent.trim();
    const element = walk.currentNode.parentElement;
    if (!words || !element.checkVisibility() || element.closest(".unseen, script, noscript, option, [hidden]")) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const enough = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
    for (const ground of grounds(element)) {
      const [light, dark] = [luminance(over(parse(style.color), ground)), luminance(ground)].sort((x, y) => y - x);
      const ratio = (light + 0.05) / (dark + 0.05);
      if (ratio < enough) bad.push(`${words.slice(0, 30)}: ${style.color} on ${ground} is ${ratio.toFixed(2)}`);
    }
  }
  return [...new Set(bad)];
}

// What axe looks for first: language, title, landmarks, headings, names of controls and pictures, unique ids, headings of tables.
function accessible() {
  const bad = [];
  const need = (condition, words) => condition || bad.push(words);
  const all = (selector) => [...document.querySelectorAll(selector)];
  const cut = (one) => one.outerHTML.slice(0, 90);
  const named = (one) =>
    (one.getAttribute("aria-label") || one.labels?.[0]?.textContent || one.textContent || one.title || "").trim();
  need(document.documentElement.lang === "en", "language");
  need(document.title.length > 8, "title");
  for (const landmark of ["main", "header.top", "footer", "h1"]) need(all(landmark).length === 1, `one ${landmark}`);
  let level = 1;
  for (const one of all("h1, h2, h3, h4")) {
    need(Number(one.tagName[1]) <= level + 1, `heading ${one.textContent} jumps`);
    level = Number(one.tagName[1]);
  }
  for (const one of all("button, a[href], select, input:not([type=hidden])")) need(named(one), `no name: ${cut(one)}`);
  for (const one of all("svg")) {
    const spoken = one.getAttribute("role") === "img" && one.getAttribute("aria-label");
    need(one.getAttribute("aria-hidden") === "true" || spoken, cut(one));
  }
  for (const one of all("table")) need(one.closest(".dump") || (one.caption && one.querySelector("th[scope]")), cut(one));
  for (const one of all("nav")) need(one.getAttribute("aria-label"), "nav without a name");
  for (const one of all("[aria-labelledby]")) need(document.getElementById(one.getAttribute("aria-labelledby")), cut(one));
  const ids = all("[id]").map((one) => one.id);
  need(new Set(ids).size === ids.length, "an id is used twice");
  for (const one of all("[tabindex]")) need(Number(one.getAttribute("tabindex")) <= 0, cut(one));
  return bad;
}

// Whatever reaches beyond the right edge, but for boxes that scroll by themselves.
function wider() {
  const visible = [...document.querySelectorAll("body *")].filter((one) => !one.closest(".dump, .unseen, thead") && one.checkVisibility());
  const bad = visible.filter((one) => {
    const box = one.getBoundingClientRect();
    return box.width > 1 && box.right > innerWidth + 1;
  });
  if (document.documentElement.scrollWidth > innerWidth) bad.push(document.documentElement);
  return bad.map((one) => one.outerHTML.slice(0, 90));
}

// How many strongly coloured pixels each chart has (its axes and grid are nearly grey), as a share of the width from `left` to `right`.
function inked(left, right) {
  return [...document.querySelectorAll("#charts canvas")].map((canvas) => {
    const from = Math.round(canvas.width * left);
    const width = Math.max(Math.round(canvas.width * right) - from, 1);
    const data = canvas.getContext("2d").getImageData(from, 0, width, Math.round(canvas.height * 0.8)).data;
    let count = 0;
    for (let at = 0; at < data.length; at += 4) {
      const [r, g, b] = [data[at], data[at + 1], data[at + 2]];
      if (data[at + 3] > 200 && Math.max(r, g, b) - Math.min(r, g, b) > 60) count += 1;
    }
    return count;
  });
}

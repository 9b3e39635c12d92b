"use strict";
// What is shown is what the part of the address behind # says: a link reproduces the view. Texts come from the
// collection and are put in as texts, never as markup.
const SVG = "http://www.w3.org/2000/svg";
const at = (id) => document.getElementById(id);
const filters = at("filters");
let asked = 0; // the latest question: answers to earlier ones are not shown
let dropped = null; // the picture that was dropped, which no address names

async function get(address, options) {
  const answer = await fetch(address, options);
  const values = await answer.json().catch(() => ({ error: answer.statusText }));
  if (!answer.ok) throw new Error(values.error);
  return values;
}

function make(name, values = {}, ...children) {
  const made = Object.assign(document.createElement(name), values);
  made.append(...children);
  return made;
}

function tell(problem) {
  at("problem").textContent = problem ? problem.message : "";
}

function view() {
  return new URLSearchParams(location.hash.slice(1));
}

function filtered(values) {
  for (const [name, value] of new FormData(filters)) if (value !== "") values.set(name, value);
  if (values.get("k") === "20") values.delete("k");
  return values;
}

// A picture with outlines over it; a picture that is not there says why.
function drawn(shown, source, paths) {
  const box = make("div", { className: "drawn" });
  const image = make("img", { src: source, alt: shown.title ?? "", width: shown.width, height: shown.height });
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${shown.width} ${shown.height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.append(...paths);
  image.addEventListener("error", async () => {
    const reason = await get(source).then(() => "no picture", (problem) => problem.message);
    box.replaceChildren(make("div", { className: "missing", textContent: reason }));
  });
  box.append(image, svg);
  return box;
}

function outline(d) {
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", d);
  return path;
}

// The picture that is asked about, its segments to be chosen.
function stage(picture, source, choose) {
  const paths = picture.segments.map((segment, number) => {
    const path = outline(segment.path);
    const title = document.createElementNS(SVG, "title");
    title.textContent = segment.class;
    path.append(title);
    path.setAttribute("tabindex", "0");
    path.setAttribute("role", "button");
    path.setAttribute("aria-label", `segment ${number}: ${segment.class}`);
    path.dataset.name = segment.id ?? segment.number;
    path.addEventListener("click", () => choose(segment));
    path.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(segment);
    });
    return path;
  });
  const box = drawn(picture, source, paths);
  at("stage").replaceChildren(...box.childNodes);
  at("stage").hidden = false;
  at("caption").textContent = picture.title ?? "";
  if (matchMedia("(max-width: 899px)").matches) at("shelf").open = false; // it would stand before the answers
}

function mark(name) {
  for (const path of at("stage").querySelectorAll("path")) path.classList.toggle("chosen", path.dataset.name === name);
}

function card(each) {
  const words = make("div", { className: "words" });
  words.append(make("b", { textContent: each.similarity.toFixed(3) }), ` · ${each.shown}`, make("br"));
  words.append(make("span", { className: "soft", textContent: each.segment }));
  const button = make("button", { type: "button", className: "card" });
  button.setAttribute("aria-label", `${each.shown}, similarity ${each.similarity.toFixed(3)}, ${each.segment}`);
  button.append(drawn(each, `/picture/${each.row}`, [outline(each.path)]), words);
  button.addEventListener("click", () => go({ segment: each.segment }));
  return button;
}

async function ask(values, name) {
  const mine = ++asked;
  at("neighbours").classList.add("busy");
  try {
    const answer = await get(`/api/neighbours?${filtered(values)}`);
    if (mine !== asked) return;
    mark(name);
    at("neighbours").replaceChildren(...answer.neighbours.map(card));
    const many = answer.neighbours.length;
    at("count").textContent = many ? `${many} nearest of ${answer.query}` : `No segment passes the filters.`;
    tell(null);
    return answer;
  } catch (problem) {
    if (mine === asked) tell(problem);
  } finally {
    if (mine === asked) at("neighbours").classList.remove("busy");
  }
}

function go(values) {
  const next = filtered(new URLSearchParams(values)).toString();
  if (location.hash.slice(1) === next) show();
  else location.hash = next;
}

// From the address to what is shown.
async function show() {
  const values = view();
  for (const field of filters.elements) {
    if (!field.name) continue;
    if (field.type === "checkbox") field.checked = values.get(field.name) === field.value;
    else field.value = values.get(field.name) ?? (field.name === "k" ? "20" : "");
  }
  try {
    if (values.has("upload")) {
      if (dropped?.upload !== values.get("upload")) throw new Error("a dropped picture is in no link: drop it once more");
      stage(dropped, dropped.source, (segment) => go({ upload: dropped.upload, number: segment.number }));
      if (values.has("number")) await ask(new URLSearchParams({ upload: dropped.upload, number: values.get("number") }), values.get("number"));
    } else if (values.has("segment") || values.has("picture")) {
      const name = values.get("segment");
      const answer = name && (await ask(new URLSearchParams({ segment: name }), name));
      if (name && !answer) return;
      const picture = await get(`/api/picture/${encodeURIComponent(answer ? answer.row : values.get("picture"))}`);
      stage(picture, `/picture/${picture.row}`, (segment) => go({ segment: segment.id }));
      mark(answer ? answer.query : name); // a row was asked for by its number
      if (!name) tell(null);
    }
  } catch (problem) {
    tell(problem);
  }
}

async function drop(file) {
  if (!file) return;
  at("drop").classList.add("busy");
  try {
    const headers = { "content-type": file.type || "application/octet-stream", "x-requested-with": "spml-dist" };
    const answer = await get("/api/upload", { method: "POST", body: file, headers });
    if (dropped) URL.revokeObjectURL(dropped.source);
    dropped = { ...answer, title: file.name, source: URL.createObjectURL(file) };
    at("neighbours").replaceChildren();
    at("count").textContent = "Choose a segment.";
    tell(null);
    go({ upload: dropped.upload });
  } catch (problem) {
    tell(problem);
  } finally {
    at("drop").classList.remove("busy");
  }
}

async function shelve(start) {
  const listed = await get(`/api/pictures?start=${start}`);
  for (const each of listed.pictures) {
    const image = make("img", { src: `/picture/${each.row}`, alt: each.title, loading: "lazy" });
    const button = make("button", { type: "button", title: each.title }, image);
    button.addEventListener("click", () => go({ picture: each.row }));
    at("pictures").append(button);
  }
  at("more").hidden = listed.next === null;
  at("more").onclick = () => shelve(listed.next).catch(tell);
}

async function start() {
  const about = await get("/api/collection");
  const lacks = Object.keys(about.lacks).map((what) => ` · no ${what}`).join("");
  at("about").textContent = `${about.segments.toLocaleString("en")} segments of ${about.pictures.toLocaleString("en")} pictures · ${about.packs.join(", ")}${lacks}`;
  for (const name of about.classes) filters.elements.only.append(make("option", { value: name, textContent: name }));
  filters.elements.k.max = about.most;
  await Promise.all([shelve(0), show()]);
}

filters.addEventListener("submit", (event) => {
  event.preventDefault();
  const values = view();
  const kept = ["segment", "picture", "upload", "number"].filter((name) => values.has(name));
  go(Object.fromEntries(kept.map((name) => [name, values.get(name)])));
});
at("file").addEventListener("change", (event) => drop(event.target.files[0]));
for (const name of ["dragenter", "dragover"]) document.addEventListener(name, (event) => { event.preventDefault(); at("drop").classList.add("over"); });
for (const name of ["dragleave", "drop"]) document.addEventListener(name, () => at("drop").classList.remove("over"));
document.addEventListener("drop", (event) => { event.preventDefault(); drop(event.dataTransfer.files[0]); });
window.addEventListener("hashchange", show);
start().catch(tell);

// The page of `resfit serve`. All that comes from files or the server becomes text (textContent), never markup.
"use strict";

const at = (id) => document.getElementById(id);

// Names may hold any script and direction: <bdi> keeps what they do to themselves.
function make(tag, text, kind) {
  const element = document.createElement(tag);
  if (text !== undefined) {
    const name = document.createElement("bdi");
    name.textContent = text;
    element.append(name);
  }
  if (kind) element.className = kind;
  return element;
}

// The same for a line that holds more than the name: what is not seen is shown as such.
const plain = (text) => text.replace(/[\p{Cc}\p{Cf}]/gu, "\ufffd");

const percent = (score) => (100 * score).toFixed(score < 0.9995 && score >= 0.0005 ? 1 : 2) + "%";

function table(top) {
  const rows = top.map(({ label, score }) => {
    const row = make("tr"), name = make("th", label), bar = make("td", undefined, "bar"), meter = make("meter");
    name.scope = "row";
    meter.value = score;
    meter.setAttribute("aria-hidden", "true"); // the number stands beside it
    bar.append(meter);
    row.append(name, bar, make("td", percent(score)));
    return row;
  });
  const whole = make("table");
  whole.setAttribute("aria-label", "Most probable classes");
  whole.append(...rows);
  return whole;
}

function entry(file) {
  const item = make("li"), picture = make("img"), body = make("div", undefined, "body");
  picture.alt = "";
  picture.src = URL.createObjectURL(file);
  picture.onload = () => URL.revokeObjectURL(picture.src);
  picture.onerror = () => { URL.revokeObjectURL(picture.src); picture.remove(); }; // TIFF: answered, not shown
  body.append(make("p", file.name, "small"));
  item.append(picture, body);
  at("answers").prepend(item);
  return body;
}

async function ask(file) {
  const started = performance.now();
  let response;
  try {
    response = await fetch("predict", { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } });
  } catch {
    throw new Error("the server does not answer: is it still running?");
  }
  const value = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
  if (!response.ok) throw new Error(value.error);
  return { ...value.predictions[0], server: value.milliseconds, whole: performance.now() - started };
}

async function classify(file) {
  const body = entry(file);
  try {
    const answer = await ask(file);
    const times = `${answer.server.toFixed(1)} ms in the server, ${answer.whole.toFixed(1)} ms in all`;
    body.append(make("p", answer.label, "label"), table(answer.top), make("p", times, "small"));
    return plain(`${file.name}: ${answer.label}, ${percent(answer.score)}`);
  } catch (error) {
    body.append(make("p", error.message, "bad"));
    return plain(`${file.name}: ${error.message}`);
  }
}

let queue = Promise.resolve(); // a drop while another is worked on comes after it

function add(files) {
  const all = [...files];
  if (all.length) queue = queue.then(() => work(all));
}

async function work(files) {
  let said = "";
  at("clear").hidden = false;
  for (const [place, file] of files.entries()) {
    at("status").textContent = `Image ${place + 1} of ${files.length}…`;
    said = await classify(file);
  }
  at("status").textContent = files.length === 1 ? said : `${files.length} images answered. Last: ${said}`;
}

function listen() {
  at("file").addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = ""; // the same file may be chosen again
  });
  at("clear").addEventListener("click", () => {
    at("answers").replaceChildren();
    at("status").textContent = "Answers cleared.";
    at("clear").hidden = true;
    at("file").focus();
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault(); // else the browser would leave this page for the file
    document.body.classList.remove("over");
    add(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => add(event.clipboardData.files));
}

function fact(name, value) {
  if (value !== null && value !== undefined) at("facts").append(make("dt", name), make("dd", String(value)));
}

async function describe() {
  const model = await (await fetch("metadata")).json();
  const size = model.preprocessing.size, number = new Intl.NumberFormat("en");
  document.title = plain(`${model.name} · resfit`);
  at("name").textContent = model.name;
  at("summary").textContent = `${model.classes.length} classes, ${size}×${size} pixels`;
  at("address").textContent = new URL(".", location.href).href;
  at("classes").append(...model.classes.map((name) => make("li", name)));
  fact("Parameters", model.params && number.format(model.params));
  fact("Multiply-accumulates", model.macs && number.format(model.macs));
  fact("Precision", model.precision);
  fact("Network", model.spec && `${model.spec.family}, widths ${model.spec.widths.join(", ")}`);
  fact("Pixels", `${model.preprocessing.resize ?? "squash"} to ${size}×${size}, ${model.preprocessing.filter}`);
  fact("Test-time views", model.tta);
  fact("Validation accuracy", model.parity && `${percent(model.parity.accuracy)} of ${number.format(model.parity.n)} images`);
  fact("Weights, SHA-256", model.weights_sha256);
  fact("resfit", model.version);
  if (model.card) {
    at("card").textContent = model.card.replace(/^---\n[^]*?\n---\n/, ""); // but for the front matter
    at("card").hidden = false;
  }
}

listen();
describe().catch(() => { at("status").textContent = "The server does not say what its model is: is it still running?"; });

"use strict";

// Everything that comes from the server or the user is set as text, never as HTML.
const byId = (id) => document.getElementById(id);
const RETRIES = 5;
let running = null;

const headers = () => {
  const key = byId("key").value;
  return key ? { Authorization: `Bearer ${key}` } : {};
};

const reason = async (response) => {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered ${response.status}.`;
  }
};

async function showModel() {
  const response = await fetch("model", { headers: headers() });
  byId("key-label").hidden = byId("key").value === "" && response.status !== 401;
  if (!response.ok) {
    byId("model").textContent = await reason(response);
    return;
  }
  const model = await response.json();
  const search = model.settings.beams === 1 ? "greedy search" : `${model.settings.beams} beams`;
  byId("model").textContent =
    `${model.name}: ${search}, texts of at most ${model.max_source_length} tokens` +
    (model.prefix ? `, prefix "${model.prefix}"` : "");
  for (const [name, most] of [["beams", "max_beams"], ["max_new_tokens", "max_new_tokens"]]) {
    byId(name).value = model.settings[name];
    byId(name).max = model.limits[most];
  }
  const names = ["", ...model.adapters];
  byId("adapter").replaceChildren(...names.map((name) => new Option(name || "none", name)));
  byId("adapter-label").hidden = names.length === 1;
  showCommand();
}

function request() {
  const body = { inputs: byId("text").value };
  if (byId("adapter").value) body.adapter = byId("adapter").value;
  for (const name of ["beams", "max_new_tokens"]) {
    if (byId(name).value) body[name] = Number(byId(name).value);
  }
  if (byId("truncate").checked) body.truncate = true;
  return body;
}

function showCommand() {
  const body = JSON.stringify({ ...request(), inputs: byId("text").value || "A source text" });
  const key = byId("key").value ? ` \\\n  -H "Authorization: Bearer $HARNESS_API_KEY"` : "";
  byId("curl").textContent =
    `curl ${new URL("generate", location.href)}${key} \\\n` +
    `  -H 'Content-Type: application/json' \\\n  -d '${body.replaceAll("'", "'\\''")}'`;
}

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

// A busy server says when to come back.
async function send(signal) {
  for (let attempt = 1; ; attempt++) {
    const response = await fetch("generate", {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers() },
      body: JSON.stringify(request()),
      signal,
    });
    if (response.status !== 429 || attempt === RETRIES) return response;
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    byId("note").textContent = `The server is busy; trying again in ${seconds} s.`;
    await pause(seconds);
    if (signal.aborted) throw new DOMException("stopped", "AbortError");
  }
}

async function predict(event) {
  event.preventDefault();
  const start = performance.now();
  running = new AbortController();
  byId("send").disabled = true;
  byId("stop").hidden = false;
  byId("prediction").classList.remove("bad");
  byId("prediction").textContent = "…";
  byId("note").textContent = "";
  try {
    const response = await send(running.signal);
    if (!response.ok) throw new Error(await reason(response));
    const [output] = (await response.json()).outputs;
    byId("prediction").textContent = output.text;
    const seconds = ((performance.now() - start) / 1000).toFixed(2);
    byId("note").textContent =
      `${output.source_tokens} tokens read, ${output.prediction_tokens} predicted, ${seconds} s` +
      (output.truncated ? "; the end of the text was cut off" : "") +
      (output.text ? "" : "; the prediction is empty");
  } catch (error) {
    const stopped = error.name === "AbortError";
    byId("prediction").classList.toggle("bad", !stopped);
    byId("prediction").textContent = stopped ? "" : error.message;
    byId("note").textContent = stopped ? "Stopped." : "";
  } finally {
    byId("send").disabled = false;
    byId("stop").hidden = true;
  }
}

async function showRoutes() {
  const { paths } = await (await fetch("openapi.json")).json();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, route] of Object.entries(methods)) {
      const term = document.createElement("dt");
      term.textContent = `${method.toUpperCase()} ${path}`;
      const text = document.createElement("dd");
      text.textContent = route.description;
      byId("routes").append(term, text);
    }
  }
}

const failed = (error) => {
  byId("model").textContent = `The server does not answer: ${error.message}`;
};
byId("form").addEventListener("submit", predict);
byId("form").addEventListener("input", showCommand);
byId("key").addEventListener("change", () => showModel().catch(failed));
byId("stop").addEventListener("click", () => running?.abort());
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("form").requestSubmit();
});
showModel().catch(failed);
showRoutes().catch(failed);

// The view of an asset: orbit, zoom and pan; modes, levels of detail, colliders and atlases.
//
// The URL's hash sets the first view, for example #mode=clay&yaw=40&pitch=15&level=1&collider=1&model=0. Attributes of
// the body say what is shown: data-frames, -mode, -level, -triangles, -collider and -errors.

const MODES = [
  ["lit", "Lit"], ["clay", "Clay"], ["wire", "Wire"], ["base", "Base color"], ["normal", "Normal map"], ["orm", "ORM"],
];
const MAP_NAMES = {
  base: "Base color", normal: "Normal map", packed: "Occlusion, roughness, metalness", occlusion: "Occlusion",
  emissive: "Emissive color",
};
const FIELD_OF_VIEW = 40;
const FIRST = { yaw: 30, pitch: 15, zoom: 1, pan: [0, 0] };
const ATLAS_PIXELS = 768;
const state = document.body.dataset;

function element(name, properties = {}, ...children) {
  const out = Object.assign(document.createElement(name), properties);
  out.append(...children);
  return out;
}

function report(error) {
  state.errors = `${state.errors ? `${state.errors}\n` : ""}${error?.message ?? error}`;
}
addEventListener("error", (event) => report(event.error ?? event.message));
addEventListener("unhandledrejection", (event) => report(event.reason));
document.addEventListener("securitypolicyviolation", (event) => report(`blocked: ${event.blockedURI}`));

/** The bytes of a file that is embedded in the page as base64. */
function embedded(id) {
  return Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
}

/** The primitives of the files of a model, each with its images. */
async function load(model) {
  const out = [];
  for (const { id, level, collider } of model.files) {
    const file = new GltfFile(embedded(id));
    const images = new Map();
    const image = (texture) => {
      if (!images.has(texture?.index)) images.set(texture?.index, file.image(texture));
      return images.get(texture?.index);
    };
    for (const primitive of file.primitives()) {
      const material = primitive.material;
      const used = {
        base: material.pbrMetallicRoughness?.baseColorTexture,
        packed: material.pbrMetallicRoughness?.metallicRoughnessTexture,
        occlusion: material.occlusionTexture,
        normal: material.normalTexture,
        emissive: material.emissiveTexture,
      };
      const decoded = {};
      for (const [name, texture] of Object.entries(used)) decoded[name] = await image(texture);
      out.push({
        ...primitive,
        level: level ?? primitive.level,
        collider: primitive.collider || Boolean(collider),
        images: decoded,
      });
    }
  }
  return out;
}

class Viewer {
  constructor(root, settings) {
    this.settings = settings;
    this.view = { mode: "lit", level: 0, collider: false };
    this.orbit = { ...FIRST };
    this.model = 0;
    this.canvas = element("canvas", { tabIndex: 0 });
    this.canvas.setAttribute("aria-label", "3D view of the asset: drag to turn, pinch or scroll to zoom");
    this.bar = element("div", { className: "bar" });
    this.note = element("p", { className: "soft" });
    this.atlas = element("div", { className: "atlas" });
    this.stand = element("div", { className: "stand" }, this.canvas);
    this.root = root;
    this.#readHash();
    this.#handleInput();
  }

  async start() {
    try {
      this.renderer = new Renderer(this.canvas, this.settings.lighting);
    } catch (error) {
      this.root.append(element("p", { textContent: `No 3D view: ${error.message}.` }));
      return;
    }
    this.root.replaceChildren(this.stand, this.bar, this.note, this.atlas);
    this.canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    this.canvas.addEventListener("webglcontextrestored", () => {
      this.renderer = new Renderer(this.canvas, this.settings.lighting);
      this.#upload();
    });
    addEventListener("hashchange", () => {
      const before = this.model;
      this.#readHash();
      if (this.model === before) this.#show();
      else this.#open();
    });
    new ResizeObserver(() => this.#resize()).observe(this.canvas);
    await this.#open();
  }

  async #open() {
    const model = this.settings.models[this.model] ?? this.settings.models[0];
    try {
      this.primitives = await load(model);
    } catch (error) {
      this.note.textContent = `No 3D view: ${error.message}.`;
      report(error);
      return;
    }
    const boxes = this.primitives.filter((each) => !each.collider && each.level === 0);
    [this.low, this.high] = [[Infinity, Infinity, Infinity], [-Infinity, -Infinity, -Infinity]];
    for (const { positions } of boxes.length ? boxes : this.primitives) {
      positions.forEach((value, i) => {
        this.low[i % 3] = Math.min(this.low[i % 3], value);
        this.high[i % 3] = Math.max(this.high[i % 3], value);
      });
    }
    this.levels = [...new Set(this.primitives.filter((each) => !each.collider).map((each) => each.level))];
    this.levels.sort((a, b) => a - b);
    this.#upload();
    this.#drawAtlases();
  }

  #upload() {
    this.renderer.clear();
    for (const primitive of this.primitives) this.renderer.add(primitive, primitive.images);
    this.#show();
  }

  #readHash() {
    const given = new URLSearchParams(location.hash.slice(1));
    const number = (name, otherwise) => (Number.isFinite(parseFloat(given.get(name))) ? Number(given.get(name)) : otherwise);
    if (MODES.some(([name]) => name === given.get("mode"))) this.view.mode = given.get("mode");
    this.view.level = number("level", this.view.level);
    this.view.collider = number("collider", Number(this.view.collider)) > 0;
    for (const name of ["yaw", "pitch", "zoom"]) this.orbit[name] = number(name, this.orbit[name]);
    this.model = number("model", this.model);
  }

  /** Rebuild the buttons, and draw. */
  #show() {
    if (!this.primitives) return;
    if (!this.levels.includes(this.view.level)) this.view.level = this.levels[0];
    const shown = this.primitives.filter((each) => !each.collider && each.level === this.view.level);
    const has = {
      normal: shown.some((each) => each.images.normal),
      orm: shown.some((each) => each.images.packed || each.images.occlusion),
    };
    const groups = [
      MODES.filter(([name]) => has[name] ?? true).map(([name, text]) => this.#button(text, "mode", name)),
      this.levels.length > 1 ? this.levels.map((level) => this.#button(`LOD ${level}`, "level", level)) : [],
      this.primitives.some((each) => each.collider) ? [this.#button("Collider", "collider", !this.view.collider)] : [],
      [element("button", { type: "button", textContent: "Reset view", onclick: () => this.#reset() })],
    ];
    if (this.settings.models.length > 1) {
      groups.unshift(this.settings.models.map(({ name }, i) => {
        const button = element("button", { type: "button", textContent: name, onclick: () => this.#choose(i) });
        button.setAttribute("aria-pressed", i === this.model);
        return button;
      }));
    }
    const focused = document.activeElement?.textContent;
    this.bar.replaceChildren(...groups.filter((group) => group.length).map((group) => element("span", {}, ...group)));
    [...this.bar.querySelectorAll("button")].find((each) => each.textContent === focused)?.focus();
    const triangles = shown.reduce((sum, each) => sum + each.indices.length / 3, 0);
    const size = this.high.map((value, i) => Number((value - this.low[i]).toPrecision(3)));
    this.note.textContent = `${triangles.toLocaleString("en")} triangles · ${size.join(" × ")} m (width × height × depth)`;
    Object.assign(state, { ...this.view, triangles });
    this.#redraw();
  }

  #button(text, key, value) {
    const button = element("button", { type: "button", textContent: text });
    button.setAttribute("aria-pressed", key === "collider" ? this.view.collider : this.view[key] === value);
    button.onclick = () => {
      this.view[key] = value;
      this.#show();
    };
    return button;
  }

  #choose(index) {
    this.model = index;
    this.#open();
  }

  #reset() {
    this.orbit = { ...FIRST };
    this.#redraw();
  }

  #resize() {
    const scale = Math.min(devicePixelRatio, 2);
    this.canvas.width = Math.max(1, Math.round(this.canvas.clientWidth * scale));
    this.canvas.height = Math.max(1, Math.round(this.canvas.clientHeight * scale));
    if (this.primitives) this.#draw(); // at once: a resized canvas is empty
  }

  #redraw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.#draw();
    });
  }

  #draw() {
    this.renderer.draw(this.#camera(), this.view);
    state.frames = Number(state.frames ?? 0) + 1;
  }

  /** The camera of the orbit: yaw 0 looks at the front (from +Z) and grows toward +X; pitch is positive from above. */
  #camera() {
    const { yaw, pitch, zoom, pan } = this.orbit;
    const [a, e] = [yaw, pitch].map((angle) => (angle * Math.PI) / 180);
    const backward = [Math.cos(e) * Math.sin(a), Math.sin(e), Math.cos(e) * Math.cos(a)];
    const right = [Math.cos(a), 0, -Math.sin(a)];
    const up = cross(backward, right);
    const radius = Math.hypot(...difference(this.high, this.low)) / 2 || 1;
    const aspect = this.canvas.width / this.canvas.height;
    const slope = Math.tan((FIELD_OF_VIEW * Math.PI) / 360);
    this.distance = radius / Math.sin(Math.atan(slope * Math.min(1, aspect))) / zoom;
    const target = this.low.map((low, i) => (low + this.high[i]) / 2 + radius * (pan[0] * right[i] + pan[1] * up[i]));
    const eye = target.map((value, i) => value + this.distance * backward[i]);
    const reach = radius * (1.5 + Math.hypot(...pan));
    const far = this.distance + reach;
    const near = Math.max(this.distance - reach, far / 2000);
    const dot = (axis) => -axis.reduce((sum, value, i) => sum + value * eye[i], 0);
    const view = [0, 1, 2].flatMap((i) => [right[i], up[i], backward[i], 0]).concat([right, up, backward].map(dot), 1);
    const projection = [
      1 / (slope * aspect), 0, 0, 0, 0, 1 / slope, 0, 0,
      0, 0, (far + near) / (near - far), -1, 0, 0, (2 * far * near) / (near - far), 0,
    ];
    return { eye, right, up, backward, toClip: multiplied(projection, view) };
  }

  #handleInput() {
    const canvas = this.canvas;
    const pointers = new Map();
    const place = (event) => [event.clientX, event.clientY];
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, place(event));
    });
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
    }
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const after = place(event);
      const [x, y] = [after[0] - before[0], after[1] - before[1]];
      pointers.set(event.pointerId, after);
      if (pointers.size === 2) {
        const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
        const apart = (at) => Math.max(1, Math.hypot(at[0] - other[0], at[1] - other[1]));
        this.#zoom(apart(after) / apart(before));
        this.#pan(x / 2, y / 2);
      } else if (event.shiftKey || event.buttons & 6) {
        this.#pan(x, y);
      } else {
        this.#turn(-0.4 * x, 0.4 * y);
      }
    });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.03 : 0.001)));
    }, { passive: false });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.#reset());
    canvas.addEventListener("keydown", (event) => {
      const turns = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, 10], ArrowDown: [0, -10] };
      if (turns[event.key]) this.#turn(...turns[event.key]);
      else if (event.key === "+" || event.key === "-") this.#zoom(event.key === "+" ? 1.2 : 1 / 1.2);
      else return;
      event.preventDefault();
    });
  }

  #turn(yaw, pitch) {
    this.orbit.yaw += yaw;
    this.orbit.pitch = Math.max(-89, Math.min(89, this.orbit.pitch + pitch));
    this.#redraw();
  }

  #zoom(factor) {
    this.orbit.zoom = Math.max(0.2, Math.min(20, this.orbit.zoom * factor));
    this.#redraw();
  }

  /** Move the target by a distance in CSS pixels. */
  #pan(x, y) {
    const scale = 2.9 / this.orbit.zoom / this.canvas.clientHeight;
    this.orbit.pan = [this.orbit.pan[0] - x * scale, this.orbit.pan[1] + y * scale];
    this.#redraw();
  }

  /** Draw every texture once, and the texture coordinates over the first one of each material. */
  #drawAtlases() {
    this.atlas.replaceChildren();
    const drawn = new Set();
    for (const primitive of this.primitives.filter((each) => !each.collider && each.uvs)) {
      let first = true;
      for (const [name, image] of Object.entries(primitive.images)) {
        if (!image || drawn.has(image)) continue;
        drawn.add(image);
        this.atlas.append(this.#figure(image, `${MAP_NAMES[name]}, ${image.width} × ${image.height} px`));
        if (first) this.atlas.append(this.#figure(image, "Texture coordinates", primitive));
        first = false;
      }
    }
  }

  #figure(image, text, primitive) {
    const scale = Math.min(1, ATLAS_PIXELS / Math.max(image.width, image.height));
    const canvas = element("canvas", { width: image.width * scale, height: image.height * scale });
    const context = canvas.getContext("2d");
    if (primitive) context.globalAlpha = 0.3;
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    if (primitive) {
      context.globalAlpha = 1;
      context.strokeStyle = "#123a52";
      context.lineWidth = 0.7;
      context.beginPath();
      edgesOf(primitive.indices).forEach((vertex, i) => {
        const [u, v] = primitive.uvs.subarray(2 * vertex, 2 * vertex + 2);
        context[i % 2 ? "lineTo" : "moveTo"](u * canvas.width, v * canvas.height);
      });
      context.stroke();
    }
    return element("figure", {}, canvas, element("figcaption", { textContent: text }));
  }
}

const settings = document.getElementById("viewer-settings");
if (settings) new Viewer(document.getElementById("viewer"), JSON.parse(settings.textContent)).start();

// A map of up to some hundred thousand points, drawn in software into a canvas: no WebGL is needed.
// Data: uint32 length of a JSON header, the header, padding to four bytes, then for each point float32 x, y;
// int32 category; uint8 kind; uint8 state; uint8 writer.
const STATES = ["#9a958c", "#0072b2", "#d55e00"]; // no answer, right, wrong (after Okabe and Ito)
const DARK_STATES = ["#77736b", "#56a9e0", "#f08a4b"];
export default {
  template: `<div>
    <div class="map" ref="map">
      <canvas ref="canvas" tabindex="0" role="application" :aria-label="alt" @wheel.prevent="wheel" @pointerdown="down"
        @pointermove="move" @pointerup="up" @pointerleave="tip = null" @dblclick="reset" @keydown="key"></canvas>
      <div v-if="tip" class="tip" :style="{ left: tip.x + 'px', top: tip.y + 'px' }">{{ tip.words }}</div>
    </div>
    <div class="line" style="margin-top:.5rem">
      <button type="button" class="button" :aria-pressed="lassoing" @click="lassoing = !lassoing">{{ lassoing ? "Lasso: draw around points" : "Lasso" }}</button>
      <button type="button" class="button" @click="reset">Whole map</button>
      <span class="quiet">{{ note }}</span>
    </div>
    <div class="legend" role="group" aria-label="what is shown">
      <button v-for="each in legend" :key="each.value" type="button" :aria-pressed="!off[each.value]" @click="toggle(each.value)">
        <span class="chip" :style="{ '--c': each.colour }">{{ each.name }} {{ each.count.toLocaleString() }}</span></button>
      <span v-if="more" class="quiet">and {{ more }} more</span>
    </div></div>`,
  props: { src: String, alt: String, by: String, only: Number },
  data: () => ({ note: "loading …", tip: null, lassoing: false, legend: [], more: 0, off: {} }),
  async mounted() {
    const ask = new URLSearchParams(location.search);
    this.view = { x: +(ask.get("x") ?? 0) || 0, y: +(ask.get("y") ?? 0) || 0, z: +(ask.get("z") ?? 1) || 1 };
    const answer = await fetch(this.src);
    if (!answer.ok) { this.note = await answer.text(); return; }
    const bytes = await answer.arrayBuffer(), length = new DataView(bytes).getUint32(0, true);
    const head = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length)));
    let at = 4 + length + ((4 - (length % 4)) % 4);
    const n = (this.n = head.n);
    this.head = head;
    this.xy = new Float32Array(bytes, at, 2 * n); at += 8 * n;
    this.values = { category: new Int32Array(bytes, at, n) }; at += 4 * n;
    for (const name of ["kind", "state", "writer"]) { this.values[name] = new Uint8Array(bytes, at, n); at += n; }
    const order = new Uint32Array(n), step = this.coprime(n); // in turns, so that no category hides another
    for (let i = 0, j = 0; i < n; i++, j = (j + step) % n) order[i] = j;
    const kinds = this.values.kind, layer = (i) => ["description", "center"].indexOf(head.kinds[kinds[i]]);
    this.layers = [0, -1, 1].map((which) => order.filter((i) => layer(i) === which)); // texts, samples, centers
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.$refs.map);
    this.dark = new MutationObserver(() => this.colour());
    this.dark.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    this.colour();
  },
  unmounted() { this.observer?.disconnect(); this.dark?.disconnect(); },
  watch: { by() { this.off = {}; this.colour(); }, only() { this.colour(); } },
  methods: {
    coprime(n) {
      const common = (a, b) => (b ? common(b, a % b) : a);
      let step = Math.max(1, Math.floor(n * 0.618));
      while (n > 1 && common(step, n) > 1) step++;
      return n > 1 ? step % n || 1 : 0;
    },
    names() { return { kind: this.head.kinds, category: this.head.categories, state: this.head.states, writer: this.head.writers }[this.by]; },
    css(value) {
      const dark = document.body.classList.contains("body--dark");
      if (value < 0) return dark ? "#77736b" : "#b5b1a8";
      if (this.by === "state") return (dark ? DARK_STATES : STATES)[value];
      if (this.by === "kind") {
        const own = getComputedStyle(document.body).getPropertyValue(`--${this.head.kinds[value]}`).trim();
        if (own) return own;
        return this.head.kinds[value] === "center" ? (dark ? "#ffffff" : "#000000") : dark ? "#8a8579" : "#a39d92";
      }
      const hue = (value * 137.508) % 360, light = dark ? 66 - 10 * (value % 3) : 38 + 9 * (value % 3);
      return this.hsl(hue, 62, light);
    },
    hsl(h, s, l) {
      const a = (s / 100) * Math.min(l / 100, 1 - l / 100);
      const f = (m) => { const k = (m + h / 30) % 12; return Math.round(255 * (l / 100 - a * Math.max(-1, Math.min(k - 3, 9 - k, 1)))); };
      return "#" + [f(0), f(8), f(4)].map((v) => v.toString(16).padStart(2, "0")).join("");
    },
    rgba(css) {
      const v = parseInt(css.slice(1), 16);
      return (0xff000000 | ((v & 255) << 16) | (v & 0xff00) | (v >> 16)) >>> 0;
    },
    colour() {
      if (!this.xy) return;
      const values = this.values[this.by], names = this.names(), counts = new Map();
      for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
      const listed = [...counts].filter(([value]) => value >= 0).sort((a, b) => b[1] - a[1]);
      this.legend = listed.slice(0, 60).map(([value, count]) => ({ value, count, name: names[value], colour: this.css(value) }));
      this.more = Math.max(0, listed.length - 60);
      const known = new Map([...counts.keys()].map((value) => [value, this.rgba(this.css(value))]));
      this.colours = new Uint32Array(this.n);
      const only = this.only ?? -1, category = this.values.category;
      for (let i = 0; i < this.n; i++) {
        const hidden = this.off[values[i]] || (only >= 0 && category[i] !== only);
        this.colours[i] = hidden ? 0 : known.get(values[i]);
      }
      this.note = `${this.n.toLocaleString()} points; drag to move, wheel or + and − to zoom, click to open`;
      this.resize();
    },
    toggle(value) { this.off = { ...this.off, [value]: !this.off[value] }; this.colour(); },
    resize() {
      const canvas = this.$refs.canvas, box = this.$refs.map.getBoundingClientRect(), ratio = Math.min(2, devicePixelRatio || 1);
      if (!box.width) return;
      const width = Math.round(box.width * ratio), height = Math.round(box.height * ratio);
      if (canvas.width !== width || canvas.height !== height || !this.image) {
        canvas.width = width; canvas.height = height;
        this.image = canvas.getContext("2d").createImageData(width, height);
      }
      this.ratio = ratio;
      this.draw();
    },
    scale() { const { width, height } = this.$refs.canvas; return 0.47 * Math.min(width, height) * this.view.z; },
    draw() {
      const { width, height } = this.$refs.canvas, pixels = new Uint32Array(this.image.data.buffer), { xy, colours, n } = this;
      const s = this.scale(), ox = width / 2 - this.view.x * s, oy = height / 2 + this.view.y * s;
      const crowd = Math.max(0.7, Math.min(3.2, 90 / Math.sqrt(n))) * Math.min(2.2, Math.sqrt(this.view.z)) * this.ratio;
      const small = Math.max(1, Math.round(crowd));
      const started = performance.now();
      pixels.fill(0);
      const paint = (layer, radius) => { // dots that touch an edge are left out
        const dot = this.dot(radius, width), right = width - radius, bottom = height - radius;
        for (const i of layer) {
          const colour = colours[i], px = Math.round(ox + xy[2 * i] * s), py = Math.round(oy - xy[2 * i + 1] * s);
          if (!colour || px < radius || py < radius || px >= right || py >= bottom) continue;
          const at = py * width + px;
          for (let k = 0; k < dot.length; k++) pixels[at + dot[k]] = colour;
        }
      };
      const [texts, samples, centers] = this.layers;
      paint(texts, Math.max(1, small - 1));
      paint(samples, small);
      paint(centers, small + Math.round(this.ratio));
      this.$refs.canvas.getContext("2d").putImageData(this.image, 0, 0);
      this.ms = performance.now() - started;
      this.$refs.canvas.dataset.ms = this.ms.toFixed(1);
    },
    dot(radius, width) {
      const found = [], limit = radius * radius + 0.5; // the pixels of a dot, counted from its middle
      for (let dy = -radius; dy <= radius; dy++) for (let dx = -radius; dx <= radius; dx++) if (dx * dx + dy * dy <= limit) found.push(dy * width + dx);
      return Int32Array.from(found);
    },
    later() { if (!this.asked) this.asked = requestAnimationFrame(() => { this.asked = 0; this.draw(); }); clearTimeout(this.saved); this.saved = setTimeout(() => this.remember(), 400); },
    remember() {
      const url = new URL(location.href), whole = this.view.z === 1 && !this.view.x && !this.view.y;
      for (const name of ["x", "y", "z"]) whole ? url.searchParams.delete(name) : url.searchParams.set(name, this.view[name].toFixed(4));
      history.replaceState(history.state, "", url);
    },
    reset() { this.view = { x: 0, y: 0, z: 1 }; this.later(); },
    place(event) {
      const box = this.$refs.canvas.getBoundingClientRect(), s = this.scale() / this.ratio;
      return { x: this.view.x + (event.clientX - box.left - box.width / 2) / s, y: this.view.y - (event.clientY - box.top - box.height / 2) / s };
    },
    zoom(factor, at) {
      const z = Math.min(400, Math.max(0.6, this.view.z * factor)), f = this.view.z / z;
      this.view = { x: at.x + (this.view.x - at.x) * f, y: at.y + (this.view.y - at.y) * f, z };
      this.later();
    },
    wheel(event) { this.zoom(Math.exp(-event.deltaY * 0.0015), this.place(event)); },
    key(event) {
      const step = 0.15 / this.view.z, moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key];
      if (moves) { this.view.x += moves[0]; this.view.y += moves[1]; this.later(); }
      else if (event.key === "+" || event.key === "=") this.zoom(1.3, this.view);
      else if (event.key === "-") this.zoom(1 / 1.3, this.view);
      else if (event.key === "0") this.reset();
      else if (event.key === "Enter") { const hit = this.near(this.view, 60); if (hit >= 0) this.$emit("pick", hit); }
      else return;
      event.preventDefault();
    },
    down(event) {
      this.$refs.canvas.setPointerCapture(event.pointerId);
      this.from = { x: event.clientX, y: event.clientY, view: { ...this.view }, moved: false };
      if (this.lassoing || event.shiftKey) this.path = [this.place(event)];
    },
    move(event) {
      if (this.path) { this.path.push(this.place(event)); this.outline(); return; }
      if (this.from) {
        const s = this.scale() / this.ratio, dx = event.clientX - this.from.x, dy = event.clientY - this.from.y;
        if (Math.hypot(dx, dy) > 3) this.from.moved = true;
        this.view = { ...this.view, x: this.from.view.x - dx / s, y: this.from.view.y + dy / s };
        this.later();
        return;
      }
      const hit = this.xy ? this.near(this.place(event), 8) : -1;
      if (hit < 0) { this.tip = null; return; }
      const box = this.$refs.canvas.getBoundingClientRect(), category = this.values.category[hit];
      const words = [this.head.kinds[this.values.kind[hit]], category >= 0 ? this.head.categories[category] : "no category"];
      if (this.values.state[hit]) words.push(this.head.states[this.values.state[hit]]);
      this.tip = { x: Math.min(event.clientX - box.left + 12, box.width - 160), y: event.clientY - box.top + 12, words: words.join(" · ") };
    },
    up(event) {
      const { from, path } = this;
      this.from = this.path = null;
      if (path) {
        this.draw();
        if (path.length > 2) this.$emit("lasso", this.inside(path));
        this.lassoing = false;
      } else if (from && !from.moved) {
        const hit = this.near(this.place(event), 10);
        if (hit >= 0) this.$emit("pick", hit);
      }
    },
    near(at, pixels) {
      const limit = pixels / (this.scale() / this.ratio);
      let best = -1, least = limit * limit;
      for (let i = 0; i < this.n; i++) {
        if (!this.colours[i]) continue;
        const dx = this.xy[2 * i] - at.x, dy = this.xy[2 * i + 1] - at.y, d = dx * dx + dy * dy;
        if (d < least) { least = d; best = i; }
      }
      return best;
    },
    outline() {
      this.draw();
      const context = this.$refs.canvas.getContext("2d"), { width, height } = this.$refs.canvas, s = this.scale();
      context.beginPath();
      for (const p of this.path) context.lineTo(width / 2 + (p.x - this.view.x) * s, height / 2 - (p.y - this.view.y) * s);
      context.closePath();
      context.strokeStyle = getComputedStyle(document.body).color;
      context.lineWidth = this.ratio;
      context.stroke();
    },
    inside(path) {
      const found = [];
      for (let i = 0; i < this.n && found.length < 20000; i++) {
        if (!this.colours[i]) continue;
        const x = this.xy[2 * i], y = this.xy[2 * i + 1];
        let odd = false;
        for (let a = 0, b = path.length - 1; a < path.length; b = a++) {
          const p = path[a], q = path[b];
          if (p.y > y !== q.y > y && x < ((q.x - p.x) * (y - p.y)) / (q.y - p.y) + p.x) odd = !odd;
        }
        if (odd) found.push(i);
      }
      return found;
    },
  },
};

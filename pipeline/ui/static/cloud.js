// A turning point cloud, drawn in software into a canvas: no WebGL is needed.
// Data: float32 x, y, z of each point (in the unit sphere, z up), then uint8 red, green, blue.
export default {
  template: `<figure class="cloud" style="margin:0">
    <canvas ref="canvas" width="480" height="400" tabindex="0" role="img" :aria-label="alt"
      @keydown="key" @pointerdown="down" @pointermove="move" @pointerup="up" @pointercancel="up" @wheel.prevent="wheel"></canvas>
    <figcaption class="sub">{{ note }}</figcaption></figure>`,
  props: { src: String, alt: String },
  data: () => ({ note: "loading …" }),
  async mounted() {
    this.turn = 0.6; this.tilt = 0.42; this.zoom = 1;
    this.spinning = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    const answer = await fetch(this.src);
    if (!answer.ok) { this.note = await answer.text(); return; }
    const bytes = await answer.arrayBuffer(), n = bytes.byteLength / 15;
    this.xyz = new Float32Array(bytes, 0, 3 * n);
    this.rgb = new Uint8Array(bytes, 12 * n, 3 * n);
    this.n = n;
    this.note = `${n.toLocaleString()} points; drag or use the arrow keys to turn, space stops`;
    this.frame();
  },
  unmounted() { cancelAnimationFrame(this.next); },
  methods: {
    key(event) {
      const step = { ArrowLeft: [-0.12, 0], ArrowRight: [0.12, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
      if (event.key === " ") { this.spinning = !this.spinning; this.frame(); }
      else if (step) { this.spinning = false; this.turn += step[0]; this.tilt += step[1]; this.draw(); }
      else return;
      event.preventDefault();
    },
    down(event) { this.held = [event.clientX, event.clientY]; this.spinning = false; event.target.setPointerCapture(event.pointerId); },
    move(event) {
      if (!this.held) return;
      this.turn += (event.clientX - this.held[0]) * 0.01;
      this.tilt += (event.clientY - this.held[1]) * 0.01;
      this.held = [event.clientX, event.clientY];
      this.draw();
    },
    up() { this.held = null; },
    wheel(event) { this.zoom = Math.min(6, Math.max(0.5, this.zoom * Math.exp(-event.deltaY * 0.001))); this.draw(); },
    frame() {
      cancelAnimationFrame(this.next);
      this.draw();
      if (this.spinning) this.next = requestAnimationFrame(() => { this.turn += 0.008; this.frame(); });
    },
    draw() {
      const canvas = this.$refs.canvas;
      if (!canvas || !this.xyz) return;
      const { width, height } = canvas, context = canvas.getContext("2d");
      this.image ??= context.createImageData(width, height);
      this.depth ??= new Float32Array(width * height);
      const pixels = new Uint32Array(this.image.data.buffer), { depth, xyz, rgb, n } = this;
      pixels.fill(0xffffffff); depth.fill(-9);
      const ct = Math.cos(this.turn), st = Math.sin(this.turn), ce = Math.cos(this.tilt), se = Math.sin(this.tilt);
      const scale = this.zoom * 0.46 * Math.min(width, height);
      const radius = Math.max(1, Math.min(4, Math.round(Math.sqrt((2 * scale * scale) / n) * this.zoom)));
      for (let i = 0; i < n; i++) {
        const x = xyz[3 * i], y = xyz[3 * i + 1], z = xyz[3 * i + 2];
        const side = ct * x - st * y, away = st * x + ct * y;
        const near = -(ce * away) + se * z, up = se * away + ce * z;
        const px = Math.round(width / 2 + scale * side), py = Math.round(height / 2 - scale * up);
        const light = 0.4 + 0.6 * Math.min(1, Math.max(0, (near + 1) / 2));
        const colour = 0xff000000 | ((rgb[3 * i + 2] * light) << 16) | ((rgb[3 * i + 1] * light) << 8) | (rgb[3 * i] * light);
        for (let dy = -radius; dy <= radius; dy++) for (let dx = -radius; dx <= radius; dx++) {
          if (dx * dx + dy * dy > radius * radius) continue;
          const qx = px + dx, qy = py + dy;
          if (qx < 0 || qy < 0 || qx >= width || qy >= height) continue;
          const at = qy * width + qx;
          if (near > depth[at]) { depth[at] = near; pixels[at] = colour; }
        }
      }
      context.putImageData(this.image, 0, 0);
    },
  },
};

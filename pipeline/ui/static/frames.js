// A film made of one picture that holds all frames, one above the other.
export default {
  template: `<figure style="margin:0">
    <div class="film-frame" role="img" :aria-label="alt" :style="look"></div>
    <div class="line" style="margin-top:.5rem;flex-wrap:nowrap">
      <button class="button" type="button" @click="toggle">{{ playing ? "Pause" : "Play" }}</button>
      <input type="range" min="0" :max="count - 1" v-model.number="at" aria-label="frame" style="flex:1" @input="playing = false">
      <span class="quiet" style="white-space:nowrap">{{ at + 1 }} of {{ count }}</span>
    </div></figure>`,
  props: { src: String, alt: String, count: Number },
  data: () => ({ at: 0, playing: false, ratio: 4 / 3 }),
  computed: {
    look() {
      const place = this.count > 1 ? (100 * this.at) / (this.count - 1) : 0;
      return {
        backgroundImage: `url("${this.src}")`, backgroundSize: `100% ${100 * this.count}%`,
        backgroundPosition: `0 ${place}%`, aspectRatio: this.ratio, width: "100%", borderRadius: "8px",
        border: "1px solid var(--line)", imageRendering: "auto", maxHeight: "70vh",
      };
    },
  },
  mounted() {
    const picture = new Image();
    picture.onload = () => { this.ratio = picture.naturalWidth / (picture.naturalHeight / this.count); };
    picture.src = this.src;
    this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.timer = setInterval(() => { if (this.playing) this.at = (this.at + 1) % this.count; }, 90);
  },
  unmounted() { clearInterval(this.timer); },
  methods: { toggle() { this.playing = !this.playing; } },
};

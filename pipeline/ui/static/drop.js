// A place to drop one file on, or to choose one: a labelled input, posted to the server as soon as it is there.
export default {
  template: `<label class="drop" :class="{ over, busy }" @dragover.prevent="over = true" @dragleave="over = false" @drop.prevent="dropped">
    <span>{{ busy ? "sending " + busy + " …" : label }}</span>
    <input type="file" :accept="accept" @change="chosen">
    <span v-if="wrong" role="alert" class="wrong">{{ wrong }}</span></label>`,
  props: { url: String, label: String, accept: String, maxFileSize: Number },
  data: () => ({ over: false, busy: "", wrong: "" }),
  methods: {
    dropped(event) { this.over = false; if (event.dataTransfer.files.length) this.send(event.dataTransfer.files[0]); },
    chosen(event) { if (event.target.files.length) this.send(event.target.files[0]); },
    async send(file) {
      this.wrong = "";
      if (file.size > this.maxFileSize) { this.wrong = `${file.name} is larger than ${Math.round(this.maxFileSize / 2 ** 20)} MB.`; return; }
      this.busy = file.name;
      while (!window.did_handshake) await new Promise((done) => setTimeout(done, 20)); // what was pressed before goes first
      const body = new FormData();
      body.append("file", file, file.name);
      try {
        const answer = await fetch(this.url, { method: "POST", body });
        if (!answer.ok) this.wrong = `The file could not be sent (${answer.status}).`;
      } catch { this.wrong = "The file could not be sent."; }
      this.busy = "";
    },
    reset() { this.busy = this.wrong = ""; },
  },
};

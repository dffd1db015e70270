// Where this client stands in its user's event log (contract 4.5). Live events are that log as it
// grows: an entry is applied once and in order, and a hole is filled from the log before going on.

export class Journal {
  /** The last entry applied; null where the service keeps no log. */
  seq = null;
  #newestSeen = 0;
  #isFilling = false;

  /** `read(since)` answers entries of the log, `apply(event, data)` takes one, `lost()` starts over. */
  constructor(read, apply, lost) {
    this.read = read;
    this.apply = apply;
    this.lost = lost;
  }

  /** Stands at `seq` from now on. */
  startAt(seq) {
    this.seq = seq;
    this.#newestSeen = seq ?? 0;
  }

  /** Takes one live event. */
  follow(event, data) {
    const seq = data.event_seq;
    if (typeof seq !== "number" || this.seq === null) return this.apply(event, data);
    this.#newestSeen = Math.max(this.#newestSeen, seq);
    if (seq <= this.seq) return;
    // The log has what is missing, and this event too.
    if (seq > this.seq + 1) return void this.#fill();
    this.seq = seq;
    this.apply(event, data);
  }

  async #fill() {
    if (this.#isFilling) return;
    this.#isFilling = true;
    try {
      while (this.seq < this.#newestSeen) {
        const before = this.seq;
        for (const { event, event_seq, data } of (await this.read(this.seq)).events) {
          if (event_seq <= this.seq) continue;
          this.seq = event_seq;
          this.apply(event, data);
        }
        if (this.seq === before) throw new Error("the log does not reach as far as the live stream");
      }
    } catch {
      await this.lost();
    } finally {
      this.#isFilling = false;
    }
  }
}

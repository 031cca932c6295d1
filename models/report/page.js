"use strict";

// The demonstration: whatever is shown was computed beforehand and lies in #shift-data. Nothing is computed here.
{
  const source = document.getElementById("shift-data");
  if (source !== null) {
    const data = JSON.parse(source.textContent);
    const demonstration = document.getElementById("demonstration");
    const slider = document.getElementById("shift");
    const buttons = [...demonstration.querySelectorAll("button[data-example]")];
    const unmoved = data.shifts.indexOf(0);
    let example = buttons.findIndex((button) => button.getAttribute("aria-pressed") === "true");

    const bytes = new Map();
    for (const [role, responses] of Object.entries(data.networks)) {
      bytes.set(role, responses.map((response) => Uint8Array.from(atob(response.maps), (letter) => letter.charCodeAt(0))));
    }

    const shade = (map, shades, at) => {
      const cells = map.querySelectorAll("rect");
      cells.forEach((cell, index) => cell.setAttribute("fill-opacity", (shades[at * cells.length + index] / 255).toFixed(2)));
    };

    const raise = (panel, when, answers) => {
      const line = Number(panel.querySelector(".answers line").getAttribute("y1"));
      panel.querySelectorAll(`.answers .bar.${when}`).forEach((bar, digit) => {
        bar.setAttribute("y", (line * (1 - answers[digit])).toFixed(2));
        bar.setAttribute("height", (line * answers[digit]).toFixed(2));
      });
    };

    const trace = (signal, shift) => {
      const low = Math.min(...signal), high = Math.max(...signal), length = signal.length;
      const points = signal.map((_, index) => {
        const value = signal[(((index - shift) % length) + length) % length];
        return `${(4 + (640 * index) / (length - 1)).toFixed(1)} ${(6 + (108 * (high - value)) / (high - low || 1)).toFixed(1)}`;
      });
      return `M${points.join("L")}`;
    };

    const show = () => {
      const at = Number(slider.value) - data.shifts[0];
      document.getElementById("shift-told").textContent = data.told[at];
      slider.setAttribute("aria-valuetext", data.told[at]);
      demonstration.querySelector(".moving .pale").setAttribute("d", trace(data.signals[example], 0));
      demonstration.querySelector(".moving .now").setAttribute("d", trace(data.signals[example], data.shifts[at]));
      for (const panel of demonstration.querySelectorAll("[data-network]")) {
        const response = data.networks[panel.dataset.network][example];
        const shades = bytes.get(panel.dataset.network)[example];
        shade(panel.querySelector(".map.before"), shades, unmoved);
        shade(panel.querySelector(".map.after"), shades, at);
        raise(panel, "before", response.answers[unmoved]);
        raise(panel, "after", response.answers[at]);
        panel.querySelector(".remark").textContent = response.remarks[at];
        panel.querySelector(".verdict-before").textContent = response.verdicts[unmoved];
        panel.querySelector(".verdict-after").textContent = response.verdicts[at];
      }
    };

    slider.addEventListener("input", show);
    buttons.forEach((button, index) =>
      button.addEventListener("click", () => {
        example = index;
        buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
        show();
      }),
    );
    show();
  }
}

// On paper nothing can be unfolded.
window.addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});

// Receptive fields: the field of the unit that is pointed at, or has the focus, takes its layer's place.
for (const unit of document.querySelectorAll(".unit")) {
  const point = () => {
    const picture = unit.closest("svg");
    const layer = unit.dataset.layer;
    for (const other of picture.querySelectorAll(`.unit.layer${layer}`)) other.classList.toggle("chosen", other === unit);
    picture.querySelector(`.field.layer${layer}`).setAttribute("d", unit.dataset.field);
  };
  unit.addEventListener("pointerenter", point);
  unit.addEventListener("focus", point);
  unit.addEventListener("click", point);
}

"use strict";
// A document of one canvas that writes down what is filled; `report` zooms, points at a detection, and prints.
let fills = [], frames = [], drawing;
const handlers = {canvas: {}, window: {}};
const element = () => ({style: {}, offsetWidth: 100, offsetHeight: 50, offsetTop: 0, append() {}, addEventListener() {}});
const pen = {
  setTransform() {}, clearRect() { fills = []; }, save() {}, restore() {}, beginPath() {}, rect() {}, clip() {},
  setLineDash() {}, strokeRect() {}, fillText() {}, drawImage() {}, putImageData() {}, measureText: () => ({width: 10}),
  createImageData: (width, height) => ({data: new Uint8ClampedArray(4 * width * height)}),
  fillRect(x, y, w, h) { fills.push([this.fillStyle, x, y, w, h]); },
};
const canvas = {
  ...element(), getContext: () => pen, setAttribute() {}, setPointerCapture() {},
  getBoundingClientRect: () => ({left: 0, top: 0}),
  addEventListener: (name, call) => { handlers.canvas[name] = call; },
};
const room = {...element(), getBoundingClientRect: () => ({left: 0, top: 0})};
const tip = element();
const parts = {scene: {textContent: SCENE}, room, tip};
globalThis.document = {
  documentElement: {clientWidth: 1200},
  getElementById: id => parts[id] || element(),
  querySelector: name => name === "canvas" ? canvas : element(),
  createElement: name => ({...element(), getContext: () => pen}),
};
globalThis.window = {
  innerHeight: 900, devicePixelRatio: 1, scrollTo() {},
  addEventListener: (name, call) => { handlers.window[name] = call; },
};
globalThis.requestAnimationFrame = call => frames.push(call);
function frame() { while (frames.length) frames.shift()(); return fills; }
function report() {
  const whole = frame();
  const key = name => handlers.window.keydown({key: name, preventDefault() {}});
  key("n");
  const said = tip.textContent;
  key("+");
  const zoomed = frame(), half = 0.35 * 10;
  process.stdout.write(JSON.stringify({whole, zoomed, window: [5 - half, 5 + half], tip: said}));
}

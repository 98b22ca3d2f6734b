// Both images in one WebGL2 view: the moving one is fetched through the displacements of a lattice.

import { panelsOf } from "./panels.js";

const VERTEX = `#version 300 es
in vec2 corner; out vec2 share;
void main() { share = vec2(corner.x, 1.0 - corner.y) ; gl_Position = vec4(2.0 * corner - 1.0, 0, 1); }`;

const FRAGMENT = `#version 300 es
precision highp float; precision highp sampler3D;
in vec2 share; out vec4 colour;
uniform sampler3D fixedImage, movingImage, displacements;
uniform vec3 fixedSize, movingSize, latticeSize, at, horizontal, vertical;
uniform vec2 flipped, extent;
uniform vec3 seenPart;
uniform mat4 worldFromIndex, indexFromWorld, movingFromWorld, latticeFromWorld;
uniform float amount, line; uniform int mode; uniform bool lines, greyFixed, greyMoving;
vec3 seen(sampler3D image, vec3 index, vec3 size, bool grey) {
  vec3 place = (index + 0.5) / size;
  if (any(lessThan(place, vec3(0))) || any(greaterThan(place, vec3(1)))) return vec3(0);
  vec3 value = texture(image, place).rgb;
  return grey ? value.rrr : value;
}
float grey(vec3 c) { return dot(c, vec3(0.299, 0.587, 0.114)); }
void main() {
  vec2 place = seenPart.xy + seenPart.z * share, part = mix(place, 1.0 - place, flipped);
  vec3 index = at * (1.0 - horizontal - vertical)
    + horizontal * (part.x * dot(fixedSize, horizontal) - 0.5)
    + vertical * (part.y * dot(fixedSize, vertical) - 0.5);
  vec4 world = worldFromIndex * vec4(index, 1);
  vec3 node = ((latticeFromWorld * world).xyz + 0.5) / latticeSize;
  vec4 there = world + vec4(texture(displacements, node).xyz, 0);
  vec3 f = seen(fixedImage, index, fixedSize, greyFixed);
  vec3 m = seen(movingImage, (movingFromWorld * there).xyz, movingSize, greyMoving);
  if (mode == 0) colour.rgb = mix(f, m, amount);
  else if (mode == 1) colour.rgb = share.x < amount ? m : f;
  else if (mode == 2) {
    vec2 field = floor(share * extent / max(extent.x, extent.y) * (2.0 + 14.0 * amount));
    colour.rgb = mod(field.x + field.y, 2.0) < 0.5 ? f : m;
  } else if (mode == 3) colour.rgb = abs(f - m) * (1.0 + 3.0 * amount);
  else colour.rgb = vec3(2.0 * amount * grey(m), 2.0 * (1.0 - amount) * grey(f), 2.0 * amount * grey(m));
  if (lines) {
    vec3 back = (indexFromWorld * there).xyz;
    vec2 grid = vec2(dot(back, horizontal) / dot(fixedSize, horizontal) * extent.x,
      dot(back, vertical) / dot(fixedSize, vertical) * extent.y) / line;
    vec2 near = abs(fract(grid) - 0.5) / fwidth(grid);
    colour.rgb = mix(colour.rgb, vec3(1, 0.85, 0.2), 0.8 * (1.0 - min(min(near.x, near.y), 1.0)));
  }
  colour.a = 1.0;
}`;

const LEAST_SHARP = 0.25;
const columns = (rows) => Float32Array.from([0, 1, 2, 3].flatMap((c) => rows.map((row) => row[c])));

function programOf(gl) {
  const program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.bindAttribLocation(program, 0, "corner");
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error("The view cannot be drawn.");
  return program;
}

// Throws an Error with a sentence where the browser has no WebGL2.
export class View {
  constructor(canvas) {
    this.canvas = canvas;
    const gl = this.gl = canvas.getContext("webgl2", { antialias: false });
    if (!gl) {
      throw new Error("This browser has no WebGL2, which the images are drawn with; use another one, "
        + "or look at overlay.png of the result.");
    }
    this.finest = gl.getExtension("OES_texture_float_linear") ? gl.RGBA32F : gl.RGBA16F;
    this.program = programOf(gl);
    gl.useProgram(this.program);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([0, 0, 1, 0, 0, 1, 1, 1]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    ["fixedImage", "movingImage", "displacements"].forEach((name, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_3D, gl.createTexture());
      for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) {
        gl.texParameteri(gl.TEXTURE_3D, side, gl.CLAMP_TO_EDGE);
      }
      gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
      gl.uniform1i(this.place(name), unit);
    });
  }

  place(name) { return this.gl.getUniformLocation(this.program, name); }

  setImages(fixed, moving) {
    const { gl } = this;
    this.grid = fixed;
    [fixed, moving].forEach(({ size, channels, voxels }, unit) => {
      const [inside, outside] = channels === 1 ? [gl.R8, gl.RED] : [gl.RGB8, gl.RGB];
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.texImage3D(gl.TEXTURE_3D, 0, inside, ...size, 0, outside, gl.UNSIGNED_BYTE, voxels);
    });
    for (const [name, { size }] of Object.entries({ fixed, moving })) {
      gl.uniform3fv(this.place(`${name}Size`), size);
    }
    gl.uniform1i(this.place("greyFixed"), fixed.channels === 1);
    gl.uniform1i(this.place("greyMoving"), moving.channels === 1);
    const matrices = { worldFromIndex: fixed.worldFromIndex, indexFromWorld: fixed.indexFromWorld,
      movingFromWorld: moving.indexFromWorld };
    for (const [name, rows] of Object.entries(matrices)) {
      gl.uniformMatrix4fv(this.place(name), false, columns(rows));
    }
  }

  setDisplacements({ size, indexFromWorld }, texels) {
    const { gl } = this;
    gl.uniform3fv(this.place("latticeSize"), size);
    gl.uniformMatrix4fv(this.place("latticeFromWorld"), false, columns(indexFromWorld));
    gl.activeTexture(gl.TEXTURE2);
    gl.texImage3D(gl.TEXTURE_3D, 0, this.finest, ...size, 0, gl.RGBA, gl.FLOAT, texels);
  }

  // The sharpness with which a drawing takes so long at most here; 1 is every pixel of the screen.
  sharpnessWithin(milliseconds, at, settings) {
    this.drawn(at, settings); // with all that is done only once
    const begun = performance.now();
    this.drawn(at, settings);
    return Math.min(1, Math.max(LEAST_SHARP, Math.sqrt(milliseconds / (performance.now() - begun))));
  }

  drawn(at, settings) {
    const { gl } = this;
    this.draw(at, settings);
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); // waits for it
  }

  // Draws the slices that meet at an index; returns their panels in CSS pixels.
  draw(at, { mode, amount, lines, part }, sharpness = 1) {
    const { gl, canvas } = this, ratio = (window.devicePixelRatio || 1) * sharpness;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      [canvas.width, canvas.height] = [Math.round(width * ratio), Math.round(height * ratio)];
    }
    const panels = panelsOf(this.grid, width, height, part);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform1i(this.place("mode"), mode);
    gl.uniform1f(this.place("amount"), amount);
    gl.uniform1i(this.place("lines"), lines);
    gl.uniform1f(this.place("line"), Math.max(...panels.map((p) => Math.max(p.w, p.height))) / 20);
    gl.uniform3fv(this.place("at"), at);
    for (const panel of panels) {
      gl.uniform3f(this.place("seenPart"), panel.part.x, panel.part.y, panel.part.span);
      const unit = (axis) => [0, 1, 2].map((c) => (c === axis ? 1 : 0));
      gl.uniform3fv(this.place("horizontal"), unit(panel.h));
      gl.uniform3fv(this.place("vertical"), unit(panel.v));
      gl.uniform2f(this.place("flipped"), panel.flipH, panel.flipV);
      gl.uniform2f(this.place("extent"), panel.w, panel.height);
      gl.viewport(panel.left * ratio, canvas.height - (panel.top + panel.height) * ratio,
        panel.w * ratio, panel.height * ratio);
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    }
    return panels;
  }
}

// Drawing with WebGL 2: glTF metallic-roughness materials under a key light that moves with the camera.

const LOCATIONS = { positions: [0, 3], normals: [1, 3], uvs: [2, 2], tangents: [3, 4], colors: [4, 4] };
const MODE = { lit: 0, clay: 1, wire: 1, base: 2, normal: 3, orm: 4, solid: 5 };
const TEXTURES = ["base", "packed", "occlusion", "normal", "emissive"];
const BACKGROUND = [0.95, 0.95, 0.95];
const LINE = [0.08, 0.2, 0.3, 0.7];
const HULLS = [[0.85, 0.4, 0.05], [0.05, 0.5, 0.7], [0.55, 0.25, 0.7], [0.15, 0.55, 0.2], [0.8, 0.15, 0.3]];

const VERTEX_SHADER = `#version 300 es
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 uv;
layout(location = 3) in vec4 tangent;
layout(location = 4) in vec4 tint;
uniform mat4 uToClip;
out vec3 vPosition;
out vec3 vNormal;
out vec2 vUv;
out vec4 vTangent;
out vec4 vTint;
void main() {
  vPosition = position;
  vNormal = normal;
  vUv = uv;
  vTangent = tangent;
  vTint = tint;
  gl_Position = uToClip * vec4(position, 1.0);
}`;

const FRAGMENT_SHADER = `#version 300 es
precision highp float;
in vec3 vPosition;
in vec3 vNormal;
in vec2 vUv;
in vec4 vTangent;
in vec4 vTint;
uniform int uMode;
uniform vec3 uEye;
uniform vec3 uTowardLight;
uniform vec2 uLight;  // linear factors of direct and of ambient light
uniform float uClay;  // display value of clay
uniform vec4 uSolid;
uniform vec4 uBaseFactor;
uniform vec3 uEmissiveFactor;
uniform vec4 uSurface;  // factors of roughness and metalness, occlusion strength, normal scale
uniform float uCutoff;
uniform bool uHasTangents;
uniform sampler2D uBase, uPacked, uOcclusion, uNormal, uEmissive;
out vec4 fragment;
const float PI = 3.14159265;

vec3 toLinear(vec3 c) {
  return mix(c / 12.92, pow((c + 0.055) / 1.055, vec3(2.4)), vec3(greaterThan(c, vec3(0.04045))));
}

vec3 toDisplay(vec3 c) {
  c = clamp(c, 0.0, 1.0);
  return mix(c * 12.92, 1.055 * pow(max(c, 1e-8), vec3(1.0 / 2.4)) - 0.055, vec3(greaterThan(c, vec3(0.0031308))));
}

// Normal of the normal map. Without tangents, they follow from the derivatives of position and uv.
vec3 mappedNormal(vec3 n) {
  vec3 texel = texture(uNormal, vUv).xyz * 2.0 - 1.0;
  texel.xy *= uSurface.w;
  vec3 t = vTangent.xyz;
  float handedness = vTangent.w;
  if (!uHasTangents) {
    vec3 px = dFdx(vPosition), py = dFdy(vPosition);
    vec2 ux = dFdx(vUv), uy = dFdy(vUv);
    t = px * uy.y - py * ux.y;
    vec3 b = py * ux.x - px * uy.x;
    handedness = dot(cross(n, t), b) < 0.0 ? 1.0 : -1.0;
  }
  t -= n * dot(n, t);
  if (dot(t, t) < 1e-20) return n;
  t = normalize(t);
  return normalize(texel.x * t + texel.y * cross(n, t) * handedness + texel.z * n);
}

// Reflected ambient light of a rough surface. Source: Karis, "Physically Based Shading on Mobile" (2014).
vec3 ambientSpecular(vec3 f0, float roughness, float cosine) {
  vec4 r = roughness * vec4(-1.0, -0.0275, -0.572, 0.022) + vec4(1.0, 0.0425, 1.04, -0.04);
  float a = min(r.x * r.x, exp2(-9.28 * cosine)) * r.x + r.y;
  vec2 ab = vec2(-1.04, 1.04) * a + r.zw;
  return f0 * ab.x + ab.y;
}

// glTF 2.0, appendix B: GGX distribution, Smith masking, Schlick's Fresnel. Light is scaled so that a white diffuse
// surface that faces it has the value of uLight.x.
vec3 shaded(vec3 base, vec3 n, float roughness, float metalness, float occlusion) {
  vec3 v = normalize(uEye - vPosition), l = normalize(uTowardLight), h = normalize(v + l);
  float nl = max(dot(n, l), 0.0), nv = max(dot(n, v), 1e-3), nh = max(dot(n, h), 0.0);
  float a2 = pow(max(roughness, 0.05), 4.0);
  float d = a2 / (PI * pow(nh * nh * (a2 - 1.0) + 1.0, 2.0));
  float masking = 0.5 / max(nl * sqrt(nv * nv * (1.0 - a2) + a2) + nv * sqrt(nl * nl * (1.0 - a2) + a2), 1e-4);
  vec3 f0 = mix(vec3(0.04), base, metalness);
  vec3 fresnel = f0 + (1.0 - f0) * pow(1.0 - max(dot(v, h), 0.0), 5.0);
  vec3 diffuse = base * (1.0 - metalness) * (uLight.y * occlusion + uLight.x * nl);
  vec3 specular = PI * uLight.x * nl * d * masking * fresnel;
  return diffuse + specular + uLight.y * occlusion * ambientSpecular(f0, roughness, nv);
}

void main() {
  vec3 n = normalize(vNormal) * (gl_FrontFacing ? 1.0 : -1.0);
  vec4 base = texture(uBase, vUv) * uBaseFactor * vTint;
  float occlusion = 1.0 + uSurface.z * (texture(uOcclusion, vUv).r - 1.0);
  vec2 surface = texture(uPacked, vUv).gb * uSurface.xy;
  vec3 color;
  if (uMode == 5) {
    fragment = uSolid;
    return;
  }
  if (uMode != 1 && base.a < uCutoff) discard;
  if (uMode == 0) {
    color = shaded(base.rgb, mappedNormal(n), surface.x, surface.y, occlusion);
    color += texture(uEmissive, vUv).rgb * uEmissiveFactor;
  } else if (uMode == 1) {
    color = toLinear(vec3(uClay)) * (uLight.y + uLight.x * max(dot(n, normalize(uTowardLight)), 0.0));
  } else if (uMode == 2) {
    color = base.rgb;
  } else {
    fragment = vec4(uMode == 3 ? texture(uNormal, vUv).rgb : vec3(occlusion, surface), 1.0);
    return;
  }
  fragment = vec4(toDisplay(color), 1.0);
}`;

/** A WebGL 2 context with the meshes that were added. */
class Renderer {
  /** Throws an Error if the browser has no WebGL 2. */
  constructor(canvas, lighting) {
    const gl = canvas.getContext("webgl2", { antialias: true, alpha: false });
    if (!gl) throw new Error("this browser has no WebGL 2");
    Object.assign(this, { gl, canvas, lighting, meshes: [] });
    this.program = this.#program();
    this.uniforms = {};
    for (let i = 0; i < gl.getProgramParameter(this.program, gl.ACTIVE_UNIFORMS); i++) {
      const { name } = gl.getActiveUniform(this.program, i);
      this.uniforms[name] = gl.getUniformLocation(this.program, name);
    }
    gl.useProgram(this.program);
    TEXTURES.forEach((name, unit) => gl.uniform1i(this.uniforms[`u${name[0].toUpperCase()}${name.slice(1)}`], unit));
    gl.uniform2f(this.uniforms.uLight, lighting.direct, lighting.ambient);
    gl.uniform1f(this.uniforms.uClay, lighting.clay);
    this.plain = { white: this.#texture([255, 255, 255, 255]), flat: this.#texture([128, 128, 255, 255]) };
    this.cache = new Map();
  }

  /** Remove all meshes. */
  clear() {
    const gl = this.gl;
    for (const { array, buffers } of this.meshes) {
      gl.deleteVertexArray(array);
      for (const buffer of buffers) gl.deleteBuffer(buffer);
    }
    for (const textures of this.cache.values()) {
      for (const texture of textures.values()) gl.deleteTexture(texture);
    }
    this.meshes = [];
    this.cache.clear();
  }

  /** Add a primitive of `GltfFile.primitives` with its images by the names of `TEXTURES`. */
  add(primitive, images) {
    const gl = this.gl;
    const array = gl.createVertexArray();
    const buffers = [];
    const buffer = () => buffers[buffers.push(gl.createBuffer()) - 1];
    gl.bindVertexArray(array);
    for (const [name, [location, size]] of Object.entries(LOCATIONS)) {
      const values = name === "colors" ? primitive.colors?.values : primitive[name];
      if (!values) continue;
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer());
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(location);
      gl.vertexAttribPointer(location, name === "colors" ? primitive.colors.size : size, gl.FLOAT, false, 0, 0);
    }
    const edges = edgesOf(primitive.indices);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, primitive.indices.byteLength + edges.byteLength, gl.STATIC_DRAW);
    gl.bufferSubData(gl.ELEMENT_ARRAY_BUFFER, 0, primitive.indices);
    gl.bufferSubData(gl.ELEMENT_ARRAY_BUFFER, primitive.indices.byteLength, edges);
    gl.bindVertexArray(null);
    const textures = TEXTURES.map((name) => {
      const image = images[name];
      if (!image) return name === "normal" ? this.plain.flat : this.plain.white;
      const isColor = name === "base" || name === "emissive";
      const key = this.cache.get(image) ?? new Map();
      if (!key.has(isColor)) key.set(isColor, this.#texture(image, isColor));
      this.cache.set(image, key);
      return key.get(isColor);
    });
    const counts = { indexCount: primitive.indices.length, edgeCount: edges.length };
    this.meshes.push({ ...primitive, array, buffers, textures, ...counts });
  }

  /** Draw the meshes of a level.
   *
   * camera: { eye, right, up, backward, toClip }; view: { mode, level, collider }.
   */
  draw(camera, view) {
    const { gl, uniforms, lighting } = this;
    gl.viewport(0, 0, this.canvas.width, this.canvas.height);
    gl.clearColor(...BACKGROUND, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.uniformMatrix4fv(uniforms.uToClip, false, camera.toClip);
    gl.uniform3fv(uniforms.uEye, camera.eye);
    // The key light is given in OpenCV camera axes: x right, y down, z forward.
    const [right, down, forward] = lighting.key;
    const toward = [0, 1, 2].map((i) => right * camera.right[i] - down * camera.up[i] - forward * camera.backward[i]);
    gl.uniform3fv(uniforms.uTowardLight, toward);
    const wire = view.mode === "wire";
    if (wire) gl.enable(gl.POLYGON_OFFSET_FILL);
    gl.polygonOffset(1, 1);
    for (const mesh of this.meshes) {
      if (!mesh.collider && mesh.level === view.level) this.#surface(mesh, MODE[view.mode]);
    }
    gl.disable(gl.POLYGON_OFFSET_FILL);
    gl.disable(gl.CULL_FACE);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    for (const mesh of this.meshes) {
      if (wire && !mesh.collider && mesh.level === view.level) this.#lines(mesh, LINE);
    }
    if (view.collider) this.#colliders();
    gl.disable(gl.BLEND);
  }

  #surface(mesh, mode) {
    const { gl, uniforms } = this;
    const material = mesh.material;
    const surface = material.pbrMetallicRoughness ?? {};
    if (material.doubleSided) gl.disable(gl.CULL_FACE);
    else gl.enable(gl.CULL_FACE);
    mesh.textures.forEach((texture, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
    });
    gl.uniform1i(uniforms.uMode, mode);
    gl.uniform4fv(uniforms.uBaseFactor, surface.baseColorFactor ?? [1, 1, 1, 1]);
    gl.uniform3fv(uniforms.uEmissiveFactor, material.emissiveFactor ?? [0, 0, 0]);
    gl.uniform4f(
      uniforms.uSurface,
      surface.roughnessFactor ?? 1,
      surface.metallicFactor ?? 1,
      material.occlusionTexture?.strength ?? 1,
      material.normalTexture?.scale ?? 1,
    );
    gl.uniform1f(uniforms.uCutoff, material.alphaMode === "MASK" ? material.alphaCutoff ?? 0.5 : -1);
    gl.uniform1i(uniforms.uHasTangents, mesh.tangents ? 1 : 0);
    gl.vertexAttrib4f(LOCATIONS.colors[0], 1, 1, 1, 1);
    gl.bindVertexArray(mesh.array);
    gl.drawElements(gl.TRIANGLES, mesh.indexCount, gl.UNSIGNED_INT, 0);
  }

  #lines(mesh, color) {
    const { gl, uniforms } = this;
    gl.uniform1i(uniforms.uMode, MODE.solid);
    gl.uniform4fv(uniforms.uSolid, color);
    gl.bindVertexArray(mesh.array);
    gl.drawElements(gl.LINES, mesh.edgeCount, gl.UNSIGNED_INT, mesh.indexCount * 4);
  }

  /** Convex hulls, each transparent with solid edges, over the asset. */
  #colliders() {
    const { gl, uniforms } = this;
    gl.disable(gl.DEPTH_TEST);
    gl.enable(gl.CULL_FACE);
    this.meshes.filter((mesh) => mesh.collider).forEach((mesh, index) => {
      const color = HULLS[index % HULLS.length];
      gl.uniform1i(uniforms.uMode, MODE.solid);
      gl.uniform4fv(uniforms.uSolid, [...color, 0.15]);
      gl.bindVertexArray(mesh.array);
      gl.drawElements(gl.TRIANGLES, mesh.indexCount, gl.UNSIGNED_INT, 0);
      this.#lines(mesh, [...color, 0.9]);
    });
  }

  /** A texture of an image or of one RGBA texel; color images are decoded from sRGB when they are sampled. */
  #texture(source, isColor = false) {
    const gl = this.gl;
    const texture = gl.createTexture();
    const format = isColor ? gl.SRGB8_ALPHA8 : gl.RGBA8;
    gl.bindTexture(gl.TEXTURE_2D, texture);
    if (Array.isArray(source)) {
      gl.texImage2D(gl.TEXTURE_2D, 0, format, 1, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(source));
    } else {
      gl.texImage2D(gl.TEXTURE_2D, 0, format, gl.RGBA, gl.UNSIGNED_BYTE, source);
    }
    gl.generateMipmap(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
    return texture;
  }

  #program() {
    const gl = this.gl;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, FRAGMENT_SHADER]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(`the shaders do not compile: ${gl.getProgramInfoLog(program)}`);
    }
    return program;
  }
}

// Reading of binary glTF 2.0 files: triangles in world space, materials and images.

const ARRAYS = {
  5120: Int8Array, 5121: Uint8Array, 5122: Int16Array, 5123: Uint16Array, 5125: Uint32Array, 5126: Float32Array,
};
const COMPONENTS = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4 };
const SUPPORTED = ["KHR_mesh_quantization", "EXT_texture_webp", "MSFT_lod"];
const LEVEL_NAME = /_LOD(\d+)$/i;
// Names of convex hulls by the conventions of Unreal, Godot and of files without a convention.
const COLLIDER_NAME = /^UCX_|-(conv)?col(only)?$|_collider(_\d+)?$/i;
const IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];

/** The JSON tree and the binary chunk of a file. Throws an Error for anything else. */
function chunksOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength < 20 || view.getUint32(0, true) !== 0x46546c67 || view.getUint32(4, true) !== 2) {
    throw new Error("the file is not a binary glTF 2.0 file");
  }
  let tree = null;
  let binary = new Uint8Array(0);
  for (let at = 12; at + 8 <= bytes.byteLength;) {
    const content = bytes.subarray(at + 8, at + 8 + view.getUint32(at, true));
    const kind = view.getUint32(at + 4, true);
    if (kind === 0x4e4f534a) tree = JSON.parse(new TextDecoder().decode(content));
    if (kind === 0x004e4942) binary = content;
    at += 8 + content.byteLength;
  }
  if (!tree) throw new Error("the file has no JSON chunk");
  const missing = (tree.extensionsRequired ?? []).filter((name) => !SUPPORTED.includes(name));
  if (missing.length) throw new Error(`the viewer does not support ${missing.join(", ")}`);
  return { tree, binary };
}

class GltfFile {
  constructor(bytes) {
    Object.assign(this, chunksOf(bytes));
  }

  /** The triangles of the default scene, in world space; one entry per primitive. */
  primitives() {
    const found = [];
    const visit = (index, parent, inherited) => {
      const node = this.tree.nodes[index];
      const world = multiplied(parent, localMatrix(node));
      const named = LEVEL_NAME.exec(node.name ?? "");
      const level = inherited ?? (named ? Number(named[1]) : 0);
      if (node.mesh !== undefined) {
        for (const primitive of this.tree.meshes[node.mesh].primitives) {
          const collider = COLLIDER_NAME.test(node.name ?? "");
          if ((primitive.mode ?? 4) === 4) found.push({ level, collider, ...this.#triangles(primitive, world) });
        }
      }
      for (const child of node.children ?? []) visit(child, world, inherited);
      (node.extensions?.MSFT_lod?.ids ?? []).forEach((other, i) => visit(other, parent, i + 1));
    };
    const scene = this.tree.scenes?.[this.tree.scene ?? 0];
    for (const root of scene?.nodes ?? []) visit(root, IDENTITY, undefined);
    return found;
  }

  /** The decoded image of a texture; null without one. */
  async image(texture) {
    const used = this.tree.textures?.[texture?.index];
    const source = used?.extensions?.EXT_texture_webp?.source ?? used?.source;
    const view = this.tree.bufferViews?.[this.tree.images?.[source]?.bufferView];
    if (!view) return null;
    const start = view.byteOffset ?? 0;
    const blob = new Blob([this.binary.subarray(start, start + view.byteLength)]);
    return createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  }

  #triangles(primitive, world) {
    const read = (name) => {
      const index = primitive.attributes[name];
      return index === undefined ? null : this.#accessor(index);
    };
    const positions = moved(read("POSITION").values, 3, world, 1);
    const count = positions.length / 3;
    const indices = primitive.indices === undefined
      ? Uint32Array.from({ length: count }, (_, i) => i)
      : Uint32Array.from(this.#accessor(primitive.indices).values);
    if (determinant(world) < 0) {
      for (let i = 0; i < indices.length; i += 3) [indices[i + 1], indices[i + 2]] = [indices[i + 2], indices[i + 1]];
    }
    const given = read("NORMAL");
    const tangents = read("TANGENT");
    return {
      positions,
      normals: given ? moved(given.values, 3, cofactors(world), 0) : smoothNormals(positions, indices),
      tangents: tangents ? moved(tangents.values, 4, world, 0) : null,
      uvs: read("TEXCOORD_0")?.values ?? null,
      colors: read("COLOR_0"),
      indices,
      material: primitive.material === undefined ? {} : this.tree.materials[primitive.material],
    };
  }

  /** The values of an accessor as numbers; normalized integers are mapped to [0, 1] or [-1, 1]. */
  #accessor(index) {
    const accessor = this.tree.accessors[index];
    if (accessor.sparse) throw new Error("the viewer does not support sparse accessors");
    const size = COMPONENTS[accessor.type];
    const Kind = ARRAYS[accessor.componentType];
    const view = this.tree.bufferViews[accessor.bufferView];
    const start = this.binary.byteOffset + (view.byteOffset ?? 0) + (accessor.byteOffset ?? 0);
    const stride = view.byteStride ?? size * Kind.BYTES_PER_ELEMENT;
    const raw = this.binary.buffer.slice(start, start + stride * (accessor.count - 1) + size * Kind.BYTES_PER_ELEMENT);
    const step = stride / Kind.BYTES_PER_ELEMENT;
    const source = new Kind(raw);
    const scale = accessor.normalized ? 1 / (2 ** (8 * Kind.BYTES_PER_ELEMENT - (Kind.name[0] === "U" ? 0 : 1)) - 1) : 1;
    const values = Kind === Uint32Array ? new Uint32Array(accessor.count * size) : new Float32Array(accessor.count * size);
    for (let row = 0; row < accessor.count; row++) {
      for (let column = 0; column < size; column++) {
        values[row * size + column] = Math.max(source[row * step + column] * scale, accessor.normalized ? -1 : -Infinity);
      }
    }
    return { values, size };
  }
}

/** Area-weighted normals of the vertices. */
function smoothNormals(positions, indices) {
  const out = new Float32Array(positions.length);
  for (let i = 0; i < indices.length; i += 3) {
    const [a, b, c] = [0, 1, 2].map((k) => positions.subarray(3 * indices[i + k], 3 * indices[i + k] + 3));
    const normal = cross(difference(b, a), difference(c, a));
    for (let k = 0; k < 3; k++) for (let axis = 0; axis < 3; axis++) out[3 * indices[i + k] + axis] += normal[axis];
  }
  return out;
}

/** The edges of triangles as pairs of vertices, each once. */
function edgesOf(indices) {
  const seen = new Set();
  for (let i = 0; i < indices.length; i++) {
    const [a, b] = [indices[i], indices[i % 3 === 2 ? i - 2 : i + 1]];
    seen.add(Math.min(a, b) * 2 ** 26 + Math.max(a, b));
  }
  const out = new Uint32Array(2 * seen.size);
  let at = 0;
  for (const key of seen) {
    out[at++] = Math.floor(key / 2 ** 26);
    out[at++] = key % 2 ** 26;
  }
  return out;
}

// Vectors and column-major matrices, as in glTF and WebGL.

function difference(a, b) {
  return [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
}

function cross(a, b) {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

function unit(a) {
  const length = Math.hypot(...a) || 1;
  return a.map((value) => value / length);
}

function multiplied(a, b) {
  const out = new Array(16).fill(0);
  for (let column = 0; column < 4; column++) {
    for (let row = 0; row < 4; row++) {
      for (let k = 0; k < 4; k++) out[4 * column + row] += a[4 * k + row] * b[4 * column + k];
    }
  }
  return out;
}

function localMatrix(node) {
  if (node.matrix) return node.matrix;
  const [x, y, z, w] = node.rotation ?? [0, 0, 0, 1];
  const [sx, sy, sz] = node.scale ?? [1, 1, 1];
  return [
    (1 - 2 * (y * y + z * z)) * sx, 2 * (x * y + z * w) * sx, 2 * (x * z - y * w) * sx, 0,
    2 * (x * y - z * w) * sy, (1 - 2 * (x * x + z * z)) * sy, 2 * (y * z + x * w) * sy, 0,
    2 * (x * z + y * w) * sz, 2 * (y * z - x * w) * sz, (1 - 2 * (x * x + y * y)) * sz, 0,
    ...(node.translation ?? [0, 0, 0]), 1,
  ];
}

/** The matrix that transforms normals: cofactors of the upper 3x3 part. */
function cofactors(m) {
  const [a, b, c] = [m.slice(0, 3), m.slice(4, 7), m.slice(8, 11)];
  return [...cross(b, c), 0, ...cross(c, a), 0, ...cross(a, b), 0, 0, 0, 0, 1];
}

function determinant(m) {
  const [a, b, c] = [m.slice(0, 3), m.slice(4, 7), m.slice(8, 11)];
  const normal = cross(b, c);
  return a[0] * normal[0] + a[1] * normal[1] + a[2] * normal[2];
}

/** Transform points (w = 1) or directions (w = 0) of `size` values; a fourth value is kept. */
function moved(values, size, m, w) {
  const out = Float32Array.from(values);
  for (let i = 0; i < values.length; i += size) {
    for (let row = 0; row < 3; row++) {
      out[i + row] = m[row] * values[i] + m[4 + row] * values[i + 1] + m[8 + row] * values[i + 2] + m[12 + row] * w;
    }
  }
  return out;
}

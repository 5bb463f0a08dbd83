// Packs what the server sends to browsers that take it packed, and says how large scripts are.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";

const folder = new URL("../../src/daitn/oam/static/", import.meta.url).pathname;
const LIMIT_BYTES = 300_000;

let scripts = 0;
for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !/\.(js|css|html|svg)$/.test(entry.name)) continue;
  const path = join(entry.parentPath ?? entry.path, entry.name);
  const plain = readFileSync(path);
  const packed = brotliCompressSync(plain);
  writeFileSync(`${path}.br`, packed);
  writeFileSync(`${path}.gz`, gzipSync(plain, { level: 9 }));
  if (entry.name.endsWith(".js")) scripts += packed.length;
}
console.log(`${(scripts / 1000).toFixed(1)} kB of script, compressed`);
if (scripts > LIMIT_BYTES) throw new Error(`scripts are larger than ${LIMIT_BYTES} bytes`);

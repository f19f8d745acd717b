// Builds policy.wasm from policy.js for the WIT world in the argument.
import { componentize } from "@bytecodealliance/componentize-js";
import { rename, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const { component } = await componentize({
  sourcePath: here("policy.js"),
  witPath: here("wit"),
  worldName: process.argv[2],
  // A policy must import nothing; each of these features imports a part of WASI.
  disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
});
// Replaced atomically: a running host may be reading it.
await writeFile(here("policy.wasm.part"), component);
await rename(here("policy.wasm.part"), here("policy.wasm"));

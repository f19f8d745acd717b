// Makes policy.wasm of policy.js, for the world that is named.
import { componentize } from "@bytecodealliance/componentize-js";
import { rename, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const { component } = await componentize({
  sourcePath: here("policy.js"),
  witPath: here("wit"),
  worldName: process.argv[2],
  // A policy imports nothing. Each of these features would import a part of WASI.
  disableFeatures: ["stdio", "random", "clocks", "http", "fetch-event"],
});
// Whole or not at all: a running host may be reading it.
await writeFile(here("policy.wasm.part"), component);
await rename(here("policy.wasm.part"), here("policy.wasm"));

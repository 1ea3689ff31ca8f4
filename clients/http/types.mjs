// Makes dimnode.d.ts out of openapi.json: `npm run types`. With --check it only says whether the file is that already.

import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import openapiTS, { astToString } from "openapi-typescript";

const place = (name) => new URL(name, import.meta.url);
const page = readFileSync(place("openapi.json"));
const head = `// Made by types.mjs out of openapi.json, sha256 ${createHash("sha256").update(page).digest("hex")}\n`;
// A field with a default may be left out of a request, so it is optional.
const made = head + astToString(await openapiTS(JSON.parse(page), { defaultNonNullable: false }));

if (!process.argv.includes("--check")) {
  writeFileSync(place("dimnode.d.ts"), made);
} else if (readFileSync(place("dimnode.d.ts"), "utf8") !== made) {
  console.log("dimnode.d.ts is not what openapi.json gives: npm run types");
  process.exitCode = 1;
} else {
  console.log("dimnode.d.ts is what openapi.json gives");
}

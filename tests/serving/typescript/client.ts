// What a viewer would write with the types made of the server's OpenAPI document.

import type { components, paths } from "./retreg";

type Result = components["schemas"]["Result"];
type Status = components["schemas"]["RegistrationStatus"];
type Order =
  paths["/v1/registrations"]["post"]["requestBody"]["content"]["application/json"];

const address = "http://127.0.0.1:8600";

export async function register(order: Order): Promise<Result> {
  const answer = await fetch(`${address}/v1/registrations`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(order),
  });
  let status = (await answer.json()) as Status;
  while (status.state === "queued" || status.state === "running") {
    const again = await fetch(`${address}/v1/registrations/${status.id}`);
    status = (await again.json()) as Status;
  }
  const result = (await (await fetch(`${address}/v1/registrations/${status.id}/result`)).json()) as Result;
  if (result.quality.verdict === "fail") throw new Error(result.quality.reason);
  return result;
}

export function links(transform: Result["transform"]): number {
  switch (transform.type) {
    case "affine":
      return transform.moving_from_fixed.length === 4 ? 1 : 0;
    case "chain":
      return transform.transforms.map(links).reduce((sum, each) => sum + each, 0);
    case "field":
      return transform.grid.size.length === 3 ? 1 : 0;
    case "tps":
      return transform.fixed_points.length > 0 ? 1 : 0;
  }
}

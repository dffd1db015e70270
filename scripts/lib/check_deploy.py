"""Reads the compose and Kubernetes files and holds what must be true of them.

They are parsed and a few rules are checked: no secret has a default, health checks and the order of the start are
there, probes ask what the service answers. Whether an engine takes them is not checked here (docs/deploy.md).
"""

import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
problems = []


def expect(holds, sentence):
    if not holds:
        problems.append(sentence)


def secrets_have_no_default(name, text):
    for variable, default in re.findall(r"\$\{(\w*(?:PASSWORD|SECRET|TOKEN|KEY))(:?[-?][^}]*)?\}", text):
        expect(default.startswith(":?"), f"{name}: {variable} must be ${{{variable}:?…}}, so that a missing one stops the start")
    expect(not re.search(r"(PASSWORD|SECRET|TOKEN|KEY): *[\"']?[A-Za-z0-9]", text), f"{name}: a secret is written down")


known = set(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.M))


def variables_exist(name, variables):
    for variable in variables:
        expect(variable in known or variable.startswith("AWS_"), f"{name}: {variable} is no variable of the service")


for name, nodes in (("docker-compose.yml", 1), ("docker-compose.cluster.yml", 2)):
    text = (ROOT / name).read_text()
    secrets_have_no_default(name, text)
    compose = yaml.safe_load(text)
    services = compose["services"]
    ours = {key: value for key, value in services.items() if key.startswith("messaging-service")}
    expect(len(ours) == nodes, f"{name}: {len(ours)} nodes")
    expect(services["postgres"]["image"] == "postgres:16", f"{name}: PostgreSQL is not 16")
    expect(services["redis"]["image"].startswith("redis:7"), f"{name}: Redis is not 7")
    for key, service in ours.items():
        variables_exist(name, service["environment"])
        expect(service.get("read_only") is True, f"{name}: {key} can write everywhere")
        waits = service["depends_on"]
        expect(all(waits[other]["condition"] == "service_healthy" for other in ("postgres", "redis")), f"{name}: {key} does not wait")
        expect(nodes == 1 or "ports" not in service, f"{name}: {key} is reached past the load balancer")
        expect(int(service["stop_grace_period"].rstrip("s")) > 10, f"{name}: {key} is cut off before SHUTDOWN_TIMEOUT")
    for key, service in services.items():
        expect("rented-network" in service["networks"], f"{name}: {key} is in another network")
        expect("healthcheck" in service or key in ours, f"{name}: {key} has no health check")
    expect(compose["networks"]["rented-network"] == {"external": True}, f"{name}: the network is not the specification's")
    expect("messaging_db" in compose["volumes"], f"{name}: the volume is not the specification's")

dockerfile = (ROOT / "Dockerfile").read_text()
for word in ("USER 10001", "HEALTHCHECK", '"rented-messaging", "health"', "STOPSIGNAL SIGTERM", "--locked"):
    expect(word in dockerfile, f"Dockerfile: {word} is missing")
copied = re.findall(r"^COPY (crates/\w+/Cargo.toml)", dockerfile, re.M)
members = re.search(r"members = \[(.*?)\]", (ROOT / "Cargo.toml").read_text(), re.S).group(1)
for member in re.findall(r'"([^"]+)"', members):
    expect(f"{member}/Cargo.toml" in copied, f"Dockerfile: the manifest of {member} is not in the dependency layer")

documents = {}
for path in sorted((ROOT / "deploy/kubernetes").glob("*.yaml")):
    for document in yaml.safe_load_all(path.read_text()):
        if "kind" in document:
            documents[document["kind"]] = document
for kind in ("ConfigMap", "Secret", "Service", "Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler"):
    expect(kind in documents, f"Kubernetes: there is no {kind}")
if not problems:
    variables_exist("ConfigMap", documents["ConfigMap"]["data"])
    variables_exist("Secret", documents["Secret"]["stringData"])
    expect(not any(documents["Secret"]["stringData"].values()), "Kubernetes: a secret is written down")
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    for probe, path in (("startupProbe", "/health"), ("livenessProbe", "/health"), ("readinessProbe", "/ready")):
        expect(container[probe]["httpGet"]["path"] == path, f"Kubernetes: {probe} does not ask {path}")
    drain = 5 + int(documents["ConfigMap"]["data"]["SHUTDOWN_TIMEOUT"])
    expect(pod["terminationGracePeriodSeconds"] > drain, "Kubernetes: pods are cut off while they drain")
    expect(container["securityContext"]["readOnlyRootFilesystem"] is True, "Kubernetes: the root can be written to")
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget"):
        selector = documents[kind]["spec"]["selector"]
        expect(selector.get("matchLabels", selector) == labels, f"Kubernetes: {kind} selects other pods")

for problem in problems:
    print(problem)
sys.exit(1 if problems else 0)

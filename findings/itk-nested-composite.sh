#!/usr/bin/env bash
# Expected: what ReadTransform gives can be put before another transform and written again, since a
# chain of chains is a chain.
# What happens in SimpleITK: a composite that holds a composite maps points but cannot be written, to
# .h5 or to text: "Composite Transform can only be 1st transform in a file". The file's own
# format has no way to nest. FlattenTransform() makes it one chain, with the same map.
# Versions: SimpleITK 2.5.7.
# Why it matters: files of ANTs and Slicer are read as composites, so adding a step to a registration
# that was read from a file works until it is to be saved. The message tells no way out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check SimpleITK==2.5.7
venv/bin/python - <<'PYTHON'
import SimpleITK as sitk

print("SimpleITK", sitk.Version_VersionString())
first = sitk.CompositeTransform([sitk.TranslationTransform(3, (1, 2, 3)), sitk.AffineTransform(3)])
sitk.WriteTransform(first, "first.h5")
chain = sitk.CompositeTransform(3)
chain.AddTransform(sitk.ReadTransform("first.h5"))
chain.AddTransform(sitk.Euler3DTransform((0, 0, 0), 0, 0, 0.3))
point = chain.TransformPoint((1, 2, 3))
for name in ("chain.h5", "chain.tfm"):
    try:
        sitk.WriteTransform(chain, name)
        raise SystemExit(f"{name} was written")
    except RuntimeError as refusal:
        print(f"{name}: {str(refusal).splitlines()[-1]}")
        assert "can only be 1st transform in a file" in str(refusal)
chain.FlattenTransform()
sitk.WriteTransform(chain, "chain.h5")
print("flattened:", point, sitk.ReadTransform("chain.h5").TransformPoint((1, 2, 3)))
assert sitk.ReadTransform("chain.h5").TransformPoint((1, 2, 3)) == point
print("As stated")
PYTHON

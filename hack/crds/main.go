// Crds writes the CustomResourceDefinitions in fixtures/crds and in fixtures/releases.
//
// The definitions come from the published manifests of the module github.com/openshift/api, at the version that go.mod
// names, so that the schemas are those of the Go types that everything here is compiled against. Where the module
// publishes one manifest for each cluster profile and feature set, the plain one is taken: a self-managed cluster with
// the default feature set. Dropped are all descriptions, which are nine tenths of the text, and the annotations, which
// speak to the cluster-version-operator. Nothing else is changed.
//
// In fixtures/releases is what a cluster needs to run the controllers of upstream's releases: the same, and more kinds,
// from the version of the module that each release was made with.
//
// Usage, from anywhere in the module:
//
//	go run ./hack/crds           # write
//	go run ./hack/crds -check    # write nothing; exit with status 1 if a file is stale, missing or too many
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// apiModule is the module that publishes the manifests.
const apiModule = "github.com/openshift/api"

// manifests lists what is published where: a folder of the module, and the prefix of the file names in it, by the
// plural name of the kind. The machine API's manifests are no part of payload-manifests, since the cluster takes them
// from another repository; they are the same schemas.
var manifests = map[string]struct{ folder, prefix string }{
	"controllerconfigs":  {"payload-manifests/crds", "0000_80_machine-config_01_"},
	"machineconfignodes": {"payload-manifests/crds", "0000_80_machine-config_01_"},
	"machineconfigpools": {"payload-manifests/crds", "0000_80_machine-config_01_"},
	"machineconfigs":     {"payload-manifests/crds", "0000_80_machine-config_01_"},
	"machineosbuilds":    {"payload-manifests/crds", "0000_80_machine-config_01_"},
	"machineosconfigs":   {"payload-manifests/crds", "0000_80_machine-config_01_"},
	"machines":           {"machine/v1beta1/zz_generated.crd-manifests", "0000_10_machine-api_01_"},
	"machinesets":        {"machine/v1beta1/zz_generated.crd-manifests", "0000_10_machine-api_01_"},
}

// variants are the endings of a manifest's name, best first. A kind that is the same everywhere has none.
var variants = []string{"", "-SelfManagedHA", "-SelfManagedHA-Default", "-Default"}

func main() {
	check := flag.Bool("check", false, "write nothing; fail if what is there isn't what would be written")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "crds:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	module, err := download(root, apiModule)
	if err != nil {
		return err
	}
	want := make(map[string][]byte, len(manifests))
	for _, plural := range slices.Sorted(maps.Keys(manifests)) {
		content, err := generate(module, plural)
		if err != nil {
			return fmt.Errorf("%s: %w", plural, err)
		}
		want[plural+".yaml"] = content
	}
	ofReleases, err := generateReleases(root, want)
	if err != nil {
		return err
	}
	for _, set := range []struct {
		folder string
		want   map[string][]byte
	}{{"fixtures/crds", want}, {"fixtures/releases", ofReleases}} {
		if check {
			err = compare(root, set.folder, set.want)
		} else {
			err = write(root, set.folder, set.want)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// module is what `go mod download -json` says of a module.
type module struct{ Path, Version, Dir, Error, Sum string }

// download returns a module, and fetches it if it isn't there yet: at the version after an @, or else at the one that
// go.mod names.
func download(root, path string) (module, error) {
	cmd := exec.Command("go", "mod", "download", "-json", path)
	cmd.Dir = root
	if strings.Contains(path, "@") {
		cmd.Env = append(os.Environ(), "GONOSUMDB="+apiModule) // the caller knows the checksum
	}
	out, err := cmd.Output()
	var m module
	if jsonErr := json.Unmarshal(out, &m); jsonErr != nil {
		return m, fmt.Errorf("download %s: %w", path, errors.Join(err, jsonErr))
	}
	if m.Error != "" {
		return m, fmt.Errorf("download %s: %s", path, m.Error)
	}
	return m, nil
}

// moduleRoot returns the folder of the main module.
func moduleRoot() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// generate returns the content of the file for one kind.
func generate(m module, plural string) ([]byte, error) {
	source, text, err := find(m, plural)
	if err != nil {
		return nil, err
	}
	return convert(m, plural, source, text)
}

// convert returns the content of the file for one kind from the manifest at a path of the module.
func convert(m module, plural, source string, text []byte) ([]byte, error) {
	// Strict, so that a field that this version of Kubernetes doesn't know is an error and not lost.
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &crd); err != nil {
		return nil, fmt.Errorf("read %s: %w", source, err)
	}
	if crd.Spec.Names.Plural != plural {
		return nil, fmt.Errorf("read %s: it defines %s", source, crd.Spec.Names.Plural)
	}
	crd.Annotations = nil
	for i := range crd.Spec.Versions {
		version := &crd.Spec.Versions[i]
		if version.Schema != nil {
			strip(version.Schema.OpenAPIV3Schema)
		}
		for j := range version.AdditionalPrinterColumns {
			version.AdditionalPrinterColumns[j].Description = ""
		}
	}

	// The status is the server's to write.
	body, err := yaml.Marshal(struct {
		APIVersion string         `json:"apiVersion"`
		Kind       string         `json:"kind"`
		Metadata   map[string]any `json:"metadata"`
		Spec       any            `json:"spec"`
	}{crd.APIVersion, crd.Kind, metadata(&crd), crd.Spec})
	if err != nil {
		return nil, fmt.Errorf("write: %w", err)
	}
	header := fmt.Sprintf("# Code generated by hack/crds. DO NOT EDIT.\n# Source: %s@%s/%s\n", m.Path, m.Version, source)
	return append([]byte(header), body...), nil
}

func metadata(crd *apiextensionsv1.CustomResourceDefinition) map[string]any {
	meta := map[string]any{"name": crd.Name}
	if len(crd.Labels) > 0 {
		meta["labels"] = crd.Labels
	}
	return meta
}

// find returns the path within the module and the content of the plainest manifest of a kind.
func find(m module, plural string) (string, []byte, error) {
	at := manifests[plural]
	for _, variant := range variants {
		source := at.folder + "/" + at.prefix + plural + variant + ".crd.yaml"
		text, err := os.ReadFile(filepath.Join(m.Dir, filepath.FromSlash(source)))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		return source, text, err
	}
	return "", nil, fmt.Errorf("no manifest %s%s{%s}.crd.yaml in %s of %s@%s",
		at.prefix, plural, strings.Join(variants, ","), at.folder, m.Path, m.Version)
}

// strip removes the descriptions of a schema and of all schemas in it.
func strip(schema *apiextensionsv1.JSONSchemaProps) {
	if schema == nil {
		return
	}
	schema.Description = ""
	if schema.Items != nil {
		strip(schema.Items.Schema)
		stripList(schema.Items.JSONSchemas)
	}
	if schema.AdditionalProperties != nil {
		strip(schema.AdditionalProperties.Schema)
	}
	if schema.AdditionalItems != nil {
		strip(schema.AdditionalItems.Schema)
	}
	strip(schema.Not)
	stripList(schema.AllOf)
	stripList(schema.AnyOf)
	stripList(schema.OneOf)
	stripMap(schema.Properties)
	stripMap(schema.PatternProperties)
	stripMap(schema.Definitions)
}

func stripList(schemas []apiextensionsv1.JSONSchemaProps) {
	for i := range schemas {
		strip(&schemas[i])
	}
}

func stripMap(schemas map[string]apiextensionsv1.JSONSchemaProps) {
	for name, schema := range schemas {
		strip(&schema)
		schemas[name] = schema
	}
}

// compare returns an error that names every file of the folder that isn't as wanted.
func compare(root, folder string, want map[string][]byte) error {
	have, err := read(filepath.Join(root, folder))
	if err != nil {
		return err
	}
	var wrong []string
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if !bytes.Equal(have[name], want[name]) {
			wrong = append(wrong, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if want[name] == nil {
			wrong = append(wrong, name+" (no longer generated)")
		}
	}
	if wrong != nil {
		return fmt.Errorf("stale in %s: %s; run `make generate`", folder, strings.Join(wrong, ", "))
	}
	return nil
}

// write makes the folder hold what is wanted and nothing else.
func write(root, folder string, want map[string][]byte) error {
	folder = filepath.Join(root, folder)
	have, err := read(folder)
	if err != nil {
		return err
	}
	for name := range have {
		if want[name] == nil {
			if err := os.Remove(filepath.Join(folder, name)); err != nil {
				return err
			}
		}
	}
	for name, content := range want {
		if bytes.Equal(have[name], content) {
			continue
		}
		path := filepath.Join(folder, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// read returns the files below a folder by their paths in it, with slashes.
func read(folder string) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err == nil {
			files[filepath.ToSlash(name)], err = os.ReadFile(path)
		}
		return err
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return files, err
}

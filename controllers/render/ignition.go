package render

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// listKeys says by which field the elements of a list are the same thing, so that a later one is merged into an earlier
// one. The path of a list is that of the fields that lead to it. Lists of other paths are joined, without duplicates.
var listKeys = map[string]string{
	"storage.files":         "path",
	"storage.directories":   "path",
	"storage.links":         "path",
	"storage.disks":         "device",
	"storage.raid":          "name",
	"storage.luks":          "name",
	"storage.filesystems":   "device",
	"systemd.units":         "name",
	"systemd.units.dropins": "name",
	"passwd.users":          "name",
	"passwd.groups":         "name",
}

// wholes are the objects that are replaced whole. A file's contents are source and encoding together: the source of one
// config with the compression of another would be garbage.
var wholes = map[string]bool{"storage.files.contents": true}

// mergeIgnition adds the Ignition config in raw to base and returns the result. It is a merge of JSON: objects field by
// field, lists as [listKeys] says, and of anything else the later value wins. Only Ignition 3 is understood; the result
// has the highest version of its parts.
func mergeIgnition(base map[string]any, raw []byte) (map[string]any, error) {
	var config map[string]any
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, fmt.Errorf("parse ignition config: %w", err)
	}
	if len(config) == 0 {
		return base, nil
	}
	version, err := ignitionVersion(config)
	if err != nil {
		return nil, err
	}
	merged := mergeObject("", base, config)
	if base != nil {
		if older, err := ignitionVersion(base); err == nil && slices.Compare(older, version) > 0 {
			merged["ignition"].(map[string]any)["version"] = base["ignition"].(map[string]any)["version"]
		}
	}
	return merged, nil
}

func ignitionVersion(config map[string]any) ([]int, error) {
	ignition, _ := config["ignition"].(map[string]any)
	text, _ := ignition["version"].(string)
	if text == "" {
		return nil, errors.New("ignition config has no ignition.version")
	}
	release, _, _ := strings.Cut(text, "-")
	var version []int
	for part := range strings.SplitSeq(release, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil, fmt.Errorf("ignition version %q: %w", text, err)
		}
		version = append(version, n)
	}
	if version[0] != 3 {
		return nil, fmt.Errorf("ignition version %s is not supported, want 3.x", text)
	}
	return version, nil
}

func mergeObject(path string, base, over map[string]any) map[string]any {
	merged := make(map[string]any, len(base)+len(over))
	for k, v := range base {
		merged[k] = v
	}
	for k, v := range over {
		at := k
		if path != "" {
			at = path + "." + k
		}
		merged[k] = mergeValue(at, merged[k], v)
	}
	return merged
}

func mergeValue(path string, base, over any) any {
	if over == nil {
		return base
	}
	switch over := over.(type) {
	case map[string]any:
		if !wholes[path] {
			object, _ := base.(map[string]any)
			return mergeObject(path, object, over)
		}
	case []any:
		list, _ := base.([]any) // also where there is none: one config may name a thing twice
		return mergeList(path, list, over)
	}
	return over
}

// mergeList keeps the order in which things were first named.
func mergeList(path string, base, over []any) []any {
	key, keyed := listKeys[path]
	merged := slices.Clone(base)
	if keyed {
		places := make(map[string]int, len(merged)+len(over))
		for i, element := range merged {
			places[name(element, key)] = i
		}
		for _, element := range over {
			n := name(element, key)
			if i, ok := places[n]; ok && n != "" {
				merged[i] = mergeValue(path, merged[i], element)
				continue
			}
			places[n] = len(merged)
			merged = append(merged, mergeValue(path, nil, element))
		}
		return merged
	}
	for _, element := range over {
		if !slices.ContainsFunc(merged, func(m any) bool { return same(m, element) }) {
			merged = append(merged, element)
		}
	}
	return merged
}

func name(element any, key string) string {
	object, _ := element.(map[string]any)
	text, _ := object[key].(string)
	return text
}

func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
)

type object struct {
	name   string
	labels map[string]string
}

func anyOrder(m map[string]*object, s sets.Set[string]) (int, bool, error) {
	out, lists, count, found := map[string]bool{}, map[string][]string{}, 0, false
	var keys, names []string
	for k, v := range m {
		if v == nil || strings.HasPrefix(k, "x") {
			continue
		}
		out[k] = true
		lists[k] = append(lists[k], v.name)
		keys = append(keys, k)
		names = append(names, v.name)
		count++
		count += len(v.name)
		found = true
		v.name = k
		s.Insert(k)
		delete(m, k)
		for range v.labels {
			count++
		}
		switch label := v.labels["x"]; label {
		case "y":
			label += k
			return 0, true, nil
		}
	}
	sort.Strings(keys)
	slices.SortFunc(names, strings.Compare)
	for range m {
		fmt.Println("each time the same")
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		fmt.Println(k)
	}
	for k := range maps.Keys(m) {
		count += len(k)
	}
	late := slices.Collect(maps.Keys(m))
	slices.Sort(late)
	return count, found, nil
}

func someOrder(ctx context.Context, m map[string]*object, s sets.Set[string]) (string, error) {
	var keys, late []string
	var first, text string
	grouped := map[string][]string{}
	for k := range m { // want `maporder: line \d+ makes`
		keys = append(keys, k)
	}
	slices.Sort(late)
	for k := range m { // want `maporder: line \d+ makes`
		first = k
		break
	}
	for k := range m { // want `maporder: line \d+ makes`
		text += k
	}
	for k, v := range m { // want `maporder: line \d+ makes`
		grouped[v.name] = append(grouped[v.name], k)
	}
	for _, v := range m { // want `maporder: line \d+ makes`
		if v == nil {
			return "", fmt.Errorf("%v", v)
		}
	}
	for k := range m { // want `maporder: line \d+ makes`
		if err := write(ctx, k); err != nil {
			continue
		}
	}
	for k := range s { // want `maporder: line \d+ makes`
		fmt.Println(k)
	}
	for k := range maps.Keys(m) { // want `maporder: line \d+ makes`
		defer fmt.Println(k)
	}
	late = slices.Collect(maps.Keys(m)) // want `maporder: the order of this iterator`
	for range maps.Values(m) {
	}
	return first + text, join(s.UnsortedList()) // want `maporder: .*UnsortedList`
}

func join([]string) error { return nil }

func write(context.Context, string) error { return nil }

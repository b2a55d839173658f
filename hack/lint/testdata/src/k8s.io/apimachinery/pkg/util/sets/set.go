// Package sets stands in for the real one.
package sets

type Set[T comparable] map[T]struct{}

func (s Set[T]) Insert(items ...T) Set[T] { return s }
func (s Set[T]) UnsortedList() []T        { return nil }

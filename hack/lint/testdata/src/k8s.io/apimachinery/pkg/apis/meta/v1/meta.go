// Package v1 stands in for the real one.
package v1

type Time struct{ Seconds int64 }

func Now() Time { return Time{} }

type Condition struct {
	Type               string
	LastTransitionTime Time
}

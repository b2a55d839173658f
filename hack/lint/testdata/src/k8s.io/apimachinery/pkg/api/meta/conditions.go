// Package meta stands in for the real one.
package meta

import v1 "k8s.io/apimachinery/pkg/apis/meta/v1"

func SetStatusCondition(conditions *[]v1.Condition, condition v1.Condition) bool { return true }

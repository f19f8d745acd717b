// Package policy is an images policy: a default, and a list of what else customers may ask for.
package policy

import (
	"slices"
	"strings"

	"wit_component/paygress_policy_images"
	"wit_component/paygress_policy_types"
	"wit_component/settings"

	"go.bytecodealliance.org/pkg/wit/types"
)

type (
	context = paygress_policy_types.Context
	image   = paygress_policy_types.ImageRef
	offer   = paygress_policy_images.ImageOffer
	order   = paygress_policy_types.Order
	refusal = paygress_policy_types.Refusal
	problem = paygress_policy_types.Problem
)

// Set by Configure, which the host calls first in every instance. An instance serves one call, so nothing else is kept.
var (
	usual string
	allow []string
)

var declared = settings.Settings{
	Title: "A list of images",
	Fields: []settings.Field{
		settings.Text(&usual, "default", "paygress.local/ssh:1", incomplete,
			"The image of orders that name none: registry/repository:tag."),
		settings.Texts(&allow, "allow", 1_000, incomplete,
			"Other images that customers may choose, compared exactly: registry/repository:tag."),
	},
}

// Schema is a JSON Schema of the settings.
func Schema() string { return declared.Schema() }

// Configure takes the settings.
func Configure(json string) wit_types.Result[wit_types.Unit, []problem] {
	if problems := settings.Read[problem](declared, json); len(problems) > 0 {
		return wit_types.Err[wit_types.Unit](problems)
	}
	return wit_types.Ok[wit_types.Unit, []problem](wit_types.Unit{})
}

// What is wrong with an image of the settings, or nothing. A digest has a colon too.
func incomplete(image string) string {
	slash := strings.LastIndex(image, "/")
	if slash < 0 || !strings.Contains(image[slash:], ":") || len(image) > 512 {
		return "must be complete: registry/repository:tag"
	}
	return ""
}

// Admit is the image to run for an order.
func Admit(order order, _ context) wit_types.Result[image, refusal] {
	wanted := order.Image.SomeOr(usual)
	if wanted != usual && !slices.Contains(allow, wanted) {
		message := "this image is not on the operator's list; leave pod_image out to get the default"
		return wit_types.Err[image](refusal{"image_not_allowed", message})
	}
	return wit_types.Ok[image, refusal](image{wanted})
}

// Catalog is the list of images that is published: at most 64.
func Catalog(context) []offer {
	images := append([]string{usual}, allow...)
	var offers []offer
	for _, reference := range images[:min(len(images), 64)] {
		offers = append(offers, offer{reference, wit_types.None[string]()})
	}
	return offers
}

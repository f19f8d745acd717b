if (window.SwaggerUIBundle) window.SwaggerUIBundle({ url: '/openapi.json', dom_id: '#docs', validatorUrl: null });

//! Names of a generated mesh.

/// What services are about; with a role they make names such as `orders` or `invoices-worker`.
pub(crate) const SUBJECTS: [&str; 48] = [
    "orders",
    "cart",
    "catalog",
    "payments",
    "invoices",
    "stock",
    "prices",
    "search",
    "users",
    "sessions",
    "reviews",
    "shipping",
    "returns",
    "coupons",
    "wishlist",
    "media",
    "images",
    "mail",
    "sms",
    "push",
    "fraud",
    "ledger",
    "accounts",
    "refunds",
    "tax",
    "offers",
    "banners",
    "feeds",
    "geo",
    "stores",
    "pickup",
    "carriers",
    "labels",
    "tracking",
    "loyalty",
    "points",
    "surveys",
    "support",
    "tickets",
    "chat",
    "exports",
    "imports",
    "partners",
    "contracts",
    "quotes",
    "suppliers",
    "demand",
    "planning",
];

/// Namespaces of business services.
pub(crate) const NAMESPACES: [&str; 5] = ["shop", "pay", "logistics", "growth", "backoffice"];

/// Hosts outside the mesh that honest services call.
pub(crate) const HOSTS: [&str; 12] = [
    "api.payments.example",
    "hooks.chat.example",
    "smtp.mail.example",
    "maps.geo.example",
    "tax.rates.example",
    "api.carrier-one.example",
    "api.carrier-two.example",
    "fx.rates.example",
    "sms.gate.example",
    "cdn.media.example",
    "crm.partner.example",
    "kyc.check.example",
];

/// Language runtimes: name in the user agent, JA4 of the TLS stack.
pub(crate) const RUNTIMES: [(&str, &str); 6] = [
    ("Go-http-client/2.0", "t13d1312h2_f57a46bbacb6_ab7e3b40a677"),
    ("okhttp/4.12", "t13d1613h2_46e7e9700bed_45f260be83e2"),
    ("node-fetch/3.3", "t13d1714h1_5b57614c22b0_93c746dc12af"),
    ("python-httpx/0.28", "t13d1812h1_85036bcba153_d41ae481755e"),
    ("hyper/1.6", "t13d1011h2_61a7ad8aa9b6_3a8073edd8ef"),
    ("dotnet/9.0", "t13d1512h2_8daaf6152771_e5627efa2ab1"),
];

/// TLS stacks that do not belong to any service: what people and intruders use.
pub(crate) const FOREIGN: [(&str, &str); 3] = [
    ("curl/8.9.1", "t13d3112h2_e8f1e7e78f70_b26ce05bbdd6"),
    ("python-requests/2.32", "t13d4312h1_c7886603b240_c7a9d3d0b1f4"),
    ("Go-http-client/1.1", "t13d190900_9dc949149365_97f8aa674fd9"),
];

/// User agent and JA4 of the runtime after `runtime`.
pub(crate) fn other_runtime(runtime: usize) -> (String, &'static str) {
    let (agent, ja4) = RUNTIMES[(runtime + 1) % RUNTIMES.len()];
    (agent.to_owned(), ja4)
}

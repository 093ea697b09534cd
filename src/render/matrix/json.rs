//! [`Matrix`] -> the JSON matrix, schema_version 1. These types are the schema.

use crate::facts::json::{ImageJson, image_json};
use crate::matrix::Matrix;
use schemars::JsonSchema;
use serde::Serialize;

pub const SCHEMA_VERSION: u32 = 1;

#[derive(Serialize, JsonSchema)]
pub struct MatricesJson {
    pub schema_version: u32,
    pub images: Vec<MatrixJson>,
}

#[derive(Serialize, JsonSchema)]
pub struct MatrixJson {
    pub image: ImageJson,
    /// False where a part of the image could not be read: then no verdict is better than unknown.
    pub complete: bool,
    pub drivers: Vec<String>,
    pub gpus: Vec<String>,
    /// Driver by driver, in it GPU by GPU.
    pub cells: Vec<CellJson>,
    /// Of all GPUs together; null where a GPU of the list has none.
    pub lowest_driver: Option<String>,
    /// The last driver that runs all, where newer ones of the list do not.
    pub up_to: Option<String>,
    pub lowest_driver_without_jit: Option<String>,
    pub lowest_by_gpu: Vec<LowestJson>,
}

#[derive(Serialize, JsonSchema)]
pub struct CellJson {
    pub driver: String,
    pub gpu: String,
    pub verdict: &'static str,
    pub how: Vec<&'static str>,
    /// Codes of the rules with findings, worst first.
    pub rules: Vec<&'static str>,
    /// What decided, in a few words; null where the image simply runs.
    pub reason: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct LowestJson {
    pub gpu: String,
    pub lowest_driver: Option<String>,
    /// The last driver that runs it, where newer ones of the list do not.
    pub up_to: Option<String>,
    pub lowest_driver_without_jit: Option<String>,
}

/// The document of several images.
pub fn matrices(all: &[&Matrix]) -> MatricesJson {
    MatricesJson { schema_version: SCHEMA_VERSION, images: all.iter().map(|m| one(m)).collect() }
}

fn one(matrix: &Matrix) -> MatrixJson {
    let mut cells = Vec::new();
    for (index, driver) in matrix.drivers.iter().enumerate() {
        for (gpu, row) in matrix.gpus.iter().zip(&matrix.rows) {
            cells.extend(row.get(index).map(|cell| CellJson {
                driver: driver.text.clone(),
                gpu: gpu.typed.clone(),
                verdict: cell.verdict.name(),
                how: cell.how.iter().map(|h| h.name()).collect(),
                rules: cell.rules.iter().map(|r| r.code).collect(),
                reason: cell.reason.as_ref().map(|r| r.headline.clone()),
            }));
        }
    }
    let lowest = |(gpu, lowest): (&crate::target::Gpu, &crate::matrix::Lowest)| LowestJson {
        gpu: gpu.typed.clone(),
        lowest_driver: lowest.driver.clone(),
        up_to: lowest.up_to.clone(),
        lowest_driver_without_jit: lowest.without_jit.clone(),
    };
    MatrixJson {
        image: image_json(&matrix.inventory.facts.image),
        complete: matrix.inventory.facts.complete,
        drivers: matrix.drivers.iter().map(|d| d.text.clone()).collect(),
        gpus: matrix.gpus.iter().map(|g| g.typed.clone()).collect(),
        cells,
        lowest_driver: matrix.lowest.driver.clone(),
        up_to: matrix.lowest.up_to.clone(),
        lowest_driver_without_jit: matrix.lowest.without_jit.clone(),
        lowest_by_gpu: matrix.gpus.iter().zip(&matrix.lowest_of).map(lowest).collect(),
    }
}
